"""Promises 1, 6 and 9: does the whole daemon come back at once, with everything it answered?

The real daemon runs as a process, under the load of several callers. It is killed, or asked to end,
at random moments. Each successor is ready soon although its catalog has 50,000 more entries, and
serves nothing older than what was answered.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import pytest

from cachesvc_client import CacheClient, CacheServiceError, NotCached, PreconditionFailed
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.local.versioned import put_version, version_of
from tests.support import sample_objects
from tests.support.daemons import Daemon, wait_until
from tests.support.grpc_calls import TIMEOUT_S
from tests.support.large_catalogs import most_cpu_s, multiply_row
from tests.support.sample_objects import fresh_id, put_in_folder

CALLERS = 3
ROWS = 50_000
FILLS = 100
INVALIDATIONS = 20
OWNER = "mill"


class Caller:
    """Puts, invalidates and gets one text of its own until the daemon is gone.

    `floor` is the oldest version that may be served; `stored` is the version that must be served, 0
    if no answer requires one.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self._id = fresh_id("text")
        self._version = 0
        self.floor = 0
        self.stored = 0
        self.answers = 0

    def look(self, client: CacheClient) -> None:
        """Get the text, and compare its version."""
        try:
            found = version_of(client.get_text(self._id))
        except (NotCached, PreconditionFailed):
            assert not self.stored, f"version {self.stored} was answered and is gone"
            return
        assert self.floor <= found <= self._version, f"version {found}, floor {self.floor}"
        assert found >= self.stored
        self.answers += 1

    def put(self, client: CacheClient) -> None:
        self._version += 1
        put_version(client, self._id, self._version)
        self.floor = self.stored = self._version
        self.answers += 1

    def invalidate(self, client: CacheClient) -> None:
        self.stored = 0
        client.invalidate(clothing_id=self._id)
        self.floor = self._version + 1
        self.answers += 1

    def call_until(self, over: threading.Event, seed: int) -> None:
        """Call until a call fails because the daemon is gone."""
        choose = random.Random(seed)
        with CacheClient(self._target, wait_s=0) as client:
            while not over.is_set():
                act = choose.choice((self.put, self.put, self.invalidate, self.look, self.look))
                try:
                    act(client)
                except CacheServiceError:
                    return


@dataclass(frozen=True)
class Large:
    """A daemon with 50,000 rows beside the callers' entries, and its first start's duration."""

    daemon: Daemon
    empty_cpu_s: float


@pytest.fixture
def large(new_daemon: NewDaemon) -> Large:
    daemon = new_daemon(is_forked=False)
    empty_cpu_s = daemon.cpu_s()
    with CacheClient(daemon.target) as client:
        put_version(client, "many", 1)
    assert daemon.stop() == 0
    multiply_row(daemon.state_dir / "catalog.sqlite", "many", ROWS)
    daemon.start()
    return Large(daemon, empty_cpu_s)


@contextlib.contextmanager
def under_load(daemon: Daemon, callers: list[Caller], seed: int) -> Iterator[None]:
    """Run all callers; afterwards each checks that its answers still hold."""
    over = threading.Event()
    before = sum(caller.answers for caller in callers)
    with ThreadPoolExecutor(len(callers)) as pool:
        done = [
            pool.submit(caller.call_until, over, seed + number)
            for number, caller in enumerate(callers)
        ]
        wait_until(lambda: sum(c.answers for c in callers) >= before + seed % 40, 20.0)
        yield
        over.set()
        for caller in done:
            caller.result()


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(2, id="quick"),
        pytest.param(300, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_a_killed_daemon_is_back_at_once_with_what_it_answered(large: Large, kills: int) -> None:
    daemon = large.daemon
    callers = [Caller(daemon.target) for _ in range(CALLERS)]
    choose, ready_s, ready_cpu_s = random.Random(5), [], []
    for _ in range(kills):
        with under_load(daemon, callers, choose.randrange(1_000)):
            daemon.kill()
        ready_s.append(daemon.start())
        ready_cpu_s.append(daemon.cpu_s())
        with CacheClient(daemon.target) as client:
            for caller in callers:
                caller.look(client)
    print(  # noqa: T201 - the figures of the run
        f"{kills} kills, {sum(c.answers for c in callers)} answers; ready after "
        f"{statistics.median(ready_s):.2f} s (median), {max(ready_s):.2f} s (worst)"
    )
    assert statistics.median(ready_cpu_s) < most_cpu_s(large.empty_cpu_s)
    assert sum(caller.answers for caller in callers) > kills


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(1, id="quick"),
        pytest.param(200, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_a_daemon_that_is_asked_to_end_amid_fills_and_invalidations_loses_no_answer(
    new_daemon: NewDaemon, rounds: int
) -> None:
    daemon = new_daemon(is_forked=False, ORIGIN__ADDED_LATENCY_MS="50")
    filled = [fresh_id("text") for _ in range(FILLS)]
    removed = [fresh_id("text") for _ in range(INVALIDATIONS)]
    for clothing_id in filled:
        put_in_folder(daemon.origin_dir, sample_objects.text(clothing_id, OWNER))
    choose, ended_s, answered = random.Random(6), [], 0
    for _ in range(rounds):
        ended, kept, gone = _end_amid(daemon, filled, removed, choose.random())
        daemon.start()
        held = {clothing_id for clothing_id in (*kept, *gone) if _is_in_l2(daemon, clothing_id)}
        assert held == set(kept)
        ended_s.append(ended)
        answered += len(kept) + len(gone)
    print(  # noqa: T201 - the figures of the run
        f"{rounds} rounds, {answered} answers; ended after {statistics.median(ended_s):.2f} s"
        f" (median), {max(ended_s):.2f} s (worst)"
    )
    assert answered > rounds


def _end_amid(
    daemon: Daemon, filled: list[str], removed: list[str], part: float
) -> tuple[float, list[str], list[str]]:
    """Send SIGTERM once a part of the calls is answered.

    Return how long the end took, and which fills and which invalidations were answered.
    """
    stub = daemon.stub()
    stub.Invalidate(pb.InvalidateRequest(owner_id=OWNER), timeout=TIMEOUT_S)
    with CacheClient(daemon.target) as client:
        for clothing_id in removed:
            put_version(client, clothing_id, 1)
    fills = {
        clothing_id: stub.GetText.future(
            pb.GetTextRequest(clothing_id=clothing_id, owner_id=OWNER), timeout=TIMEOUT_S
        )
        for clothing_id in filled
    }
    invalidations = {
        clothing_id: stub.Invalidate.future(
            pb.InvalidateRequest(clothing_id=clothing_id), timeout=TIMEOUT_S
        )
        for clothing_id in removed
    }
    calls = [*fills.values(), *invalidations.values()]
    wait_until(lambda: sum(call.done() for call in calls) >= part * len(calls), TIMEOUT_S)
    started_s = time.monotonic()
    daemon.terminate()
    assert daemon.wait() == 0
    took_s = time.monotonic() - started_s
    return took_s, _answered(fills), _answered(invalidations)


def _answered(calls: dict[str, grpc.Future]) -> list[str]:
    return [key for key, call in calls.items() if call.exception(TIMEOUT_S) is None]


def _is_in_l2(daemon: Daemon, clothing_id: str) -> bool:
    request = pb.GetTextRequest(clothing_id=clothing_id, delivery=pb.DELIVERY_NONE)
    try:
        return daemon.stub().GetText(request, timeout=TIMEOUT_S).entry.info.tier == pb.TIER_DISK
    except grpc.RpcError as exc:
        if exc.code() is grpc.StatusCode.FAILED_PRECONDITION:  # no row is left to name the owner
            return False
        raise
