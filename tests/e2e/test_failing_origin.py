"""What does a worker see while S3 misbehaves, in each of its ways?

The real daemon reads from a scripted S3. Promises 3 and 8: every call ends in time with the right
status, hits go on, and the next good fill works.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import torch

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import aws_environment, sample_objects
from tests.support.daemons import Daemon, running_daemon, wait_until
from tests.support.grpc_calls import TIMEOUT_S, get_human, put, refused
from tests.support.s3.faults import Fault, FaultyS3, running_faulty_s3
from tests.support.sample_objects import fresh_id

Code = grpc.StatusCode
OWNER = "bob"
# All members of a text are tensors, so one body serves for all of them.
BODY = pickle.dumps(torch.arange(64).reshape(1, 64).half())
TEXT_MEMBERS = 5
DEADLINE_S = 2.0
SLACK_S = 2.0
HIT_WITHIN_S = 5.0
FAILURES = 3
OPEN_S = 0.05
WITHIN_S = 20.0
MISSING_REQUESTS = 1000
CALLERS = 50

_TIMED_OUT = {"ORIGIN_TIMEOUT", "FILL_DEADLINE"}
_BAD_ANSWER = {"ORIGIN_BAD_ANSWER"}
MODES: dict[Fault, tuple[Code, set[str]]] = {
    Fault.HANGS_BEFORE_HEADERS: (Code.UNAVAILABLE, _TIMED_OUT),
    Fault.HANGS_IN_BODY: (Code.UNAVAILABLE, _TIMED_OUT),
    Fault.DRIPS: (Code.UNAVAILABLE, _TIMED_OUT),
    Fault.TRUNCATES_WITH_LENGTH: (Code.UNAVAILABLE, _BAD_ANSWER),
    Fault.TRUNCATES_WITHOUT_LENGTH: (Code.UNAVAILABLE, _BAD_ANSWER),
    Fault.EMPTY_200: (Code.UNAVAILABLE, _BAD_ANSWER),
    Fault.EMPTY_200_WITH_STAMP: (Code.DATA_LOSS, {"OBJECT_EMPTY"}),
    Fault.NO_STAMP: (Code.UNAVAILABLE, _BAD_ANSWER),
    Fault.SAYS_500: (Code.UNAVAILABLE, {"ORIGIN_SERVER_ERROR"}),
    Fault.SAYS_503: (Code.UNAVAILABLE, {"ORIGIN_THROTTLED"}),
    Fault.SAYS_403: (Code.FAILED_PRECONDITION, {"ORIGIN_ACCESS_DENIED"}),
    Fault.SAYS_404_AS_A_PROXY_DOES: (Code.UNAVAILABLE, _BAD_ANSWER),
    Fault.RESETS_BEFORE_HEADERS: (Code.UNAVAILABLE, {"ORIGIN_UNREACHABLE"}),
    Fault.RESETS_IN_BODY: (Code.UNAVAILABLE, _BAD_ANSWER),
    Fault.SPEAKS_NO_HTTP: (Code.UNAVAILABLE, {"ORIGIN_UNREACHABLE"}),
}


class BackgroundStore:
    """A FaultyS3 on a loop of its own; `fault` may be set from any thread."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(WITHIN_S)

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        async with running_faulty_s3(BODY) as self.store:
            self._started.set()
            await self._end.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()


@dataclass(frozen=True)
class Setup:
    """A daemon that reads from `store`."""

    store: FaultyS3
    daemon: Daemon

    def text_of(self, clothing_id: str, timeout_s: float = TIMEOUT_S) -> pb.Entry:
        request = pb.GetTextRequest(clothing_id=clothing_id, owner_id=OWNER)
        answer: pb.GetTextResponse = self.daemon.stub().GetText(request, timeout=timeout_s)
        return answer.entry


def settings_of(store: FaultyS3, **more: str) -> dict[str, str]:
    return {
        "ORIGIN__KIND": "s3",
        "ORIGIN__BUCKET": "bucket",
        "ORIGIN__REGION": "us-east-1",
        "ORIGIN__ENDPOINT_URL": store.endpoint_url,
        "ORIGIN__DEADLINE_S": str(DEADLINE_S),
        **more,
    }


@pytest.fixture(scope="module")
def faulty_s3() -> Iterator[FaultyS3]:
    background = BackgroundStore()
    yield background.store
    background.close()


@pytest.fixture(scope="module")
def shared_daemon(
    faulty_s3: FaultyS3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    folder: Path = tmp_path_factory.mktemp("daemon")
    settings = settings_of(faulty_s3, ORIGIN__BREAKER_OPEN_S=str(OPEN_S))
    with running_daemon(folder, settings, aws_environment.with_key(), is_forked=True) as daemon:
        yield daemon


@pytest.fixture
def setup(faulty_s3: FaultyS3, shared_daemon: Daemon) -> Iterator[Setup]:
    """One daemon for all faults: damage that one fault leaves shows at the next."""
    faulty_s3.fault = Fault.NONE
    yield Setup(faulty_s3, shared_daemon)
    faulty_s3.fault = Fault.NONE


def refill(setup: Setup) -> pb.Entry:
    """Return an entry that is filled once the origin may be asked again."""
    found: list[pb.Entry] = []

    def fills() -> bool:
        try:
            found.append(setup.text_of(fresh_id("c")))
        except grpc.RpcError:
            assert setup.daemon.metrics()["cachesvc_origin_circuit_open"] in (0, 1)
            return False
        return True

    wait_until(fills, WITHIN_S)
    return found[0]


@pytest.mark.parametrize("fault", MODES, ids=[fault.name for fault in MODES])
def test_every_call_ends_in_time_with_its_status_while_hits_go_on(
    setup: Setup, fault: Fault
) -> None:
    code, reasons = MODES[fault]
    cached = fresh_id("c")
    blob = setup.text_of(cached).tensors
    setup.store.fault = fault
    asked = setup.store.requests

    def failing_call() -> tuple[Code, str]:
        # A call that takes longer ends with DEADLINE_EXCEEDED instead.
        with refused() as refusal:
            setup.text_of(fresh_id("c"), timeout_s=DEADLINE_S + SLACK_S)
        return refusal.status

    with ThreadPoolExecutor(FAILURES) as pool:
        calls = [pool.submit(failing_call) for _ in range(FAILURES)]
        hits = hits_amid = 0
        while hits < 20 or not all(call.done() for call in calls):
            began_amid = setup.store.requests > asked
            hit = setup.text_of(cached, timeout_s=HIT_WITHIN_S)
            assert (hit.info.tier, hit.tensors) == (pb.TIER_MEMORY, blob)
            hits += 1
            hits_amid += began_amid and not any(call.done() for call in calls)
        statuses = [call.result() for call in calls]
    assert {status for status, _ in statuses} == {code}
    assert {reason for _, reason in statuses} <= reasons
    # Calls that fail at once may all have ended before the first hit.
    assert hits_amid or reasons is not _TIMED_OUT

    setup.store.fault = Fault.NONE
    assert refill(setup).info.tier == pb.TIER_ORIGIN


def test_an_open_circuit_refuses_misses_at_once_and_serves_hits(
    faulty_s3: FaultyS3, new_daemon: NewDaemon
) -> None:
    settings = settings_of(
        faulty_s3, ORIGIN__BREAKER_FAILURES=str(FAILURES), ORIGIN__BREAKER_OPEN_S="600"
    )
    setup = Setup(faulty_s3, new_daemon(environment=aws_environment.with_key(), **settings))
    cached = fresh_id("c")
    setup.text_of(cached)
    faulty_s3.fault = Fault.SAYS_500
    for _ in range(FAILURES):
        with refused() as refusal:
            setup.text_of(fresh_id("c"))
        assert refusal.reason == "ORIGIN_SERVER_ERROR"
    asked = faulty_s3.requests
    with refused() as refusal:
        setup.text_of(fresh_id("c"))
    assert refusal.status == (Code.UNAVAILABLE, "ORIGIN_CIRCUIT_OPEN")
    assert faulty_s3.requests == asked
    assert setup.daemon.metrics()["cachesvc_origin_circuit_open"] == 1
    assert setup.text_of(cached).info.tier == pb.TIER_MEMORY
    faulty_s3.fault = Fault.NONE


def test_an_expired_text_is_served_marked_as_stale_while_s3_is_away(
    faulty_s3: FaultyS3, new_daemon: NewDaemon
) -> None:
    settings = settings_of(faulty_s3, KINDS__TEXT__TTL_HOURS=str(0.2 / 3600))
    setup = Setup(faulty_s3, new_daemon(environment=aws_environment.with_key(), **settings))
    stub = setup.daemon.stub()
    text = fresh_id("c")
    filled = setup.text_of(text)
    setup.daemon.wait_until_stored()
    key = pb.EntryKey(namespace="text", id=text)
    wait_until(lambda: not stub.Inspect(pb.InspectRequest(key=key)).tiers, WITHIN_S)

    faulty_s3.fault = Fault.SAYS_500
    stale = setup.text_of(text)
    assert stale.info.stale
    assert not filled.info.stale
    assert stale.tensors == filled.tensors
    assert stale.info.generation == filled.info.generation
    assert setup.daemon.metrics()["cachesvc_stale_served_total"] == 1

    setup.daemon.stub().Invalidate(pb.InvalidateRequest(clothing_id=text))
    with refused() as refusal:
        setup.text_of(text)
    assert refusal.status == (Code.UNAVAILABLE, "ORIGIN_SERVER_ERROR")
    faulty_s3.fault = Fault.NONE


def test_a_thousand_requests_for_a_missing_person_cost_one_set_of_origin_reads(
    new_daemon: NewDaemon,
) -> None:
    daemon = new_daemon(KINDS__HUMAN__ABSENT_TTL_S="600")
    stub, user = daemon.stub(), fresh_id("u")

    def failing_call(_: int) -> tuple[Code, str]:
        with refused() as refusal:
            get_human(stub, user)
        return refusal.status

    with ThreadPoolExecutor(CALLERS) as pool:
        statuses = list(pool.map(failing_call, range(MISSING_REQUESTS)))
    assert statuses == [(Code.NOT_FOUND, "NO_SUCH_OBJECT")] * MISSING_REQUESTS
    metrics = daemon.metrics()
    assert metrics["cachesvc_fills_total"] == 1
    assert metrics["cachesvc_absences"] == 1
    assert metrics['cachesvc_unserved_requests_total{outcome="not_found"}'] == MISSING_REQUESTS

    person = sample_objects.person(user)
    put(stub, "human_upper_body", user, person.blob())
    assert person.matches(get_human(stub, user).tensors)
    assert daemon.metrics()["cachesvc_absences"] == 0
