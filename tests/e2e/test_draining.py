"""Is every call answered that was under way at SIGTERM, whoever made it, by whichever delivery?"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from cachesvc_client import AsyncCacheClient, CacheClient, LocalOptions
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.e2e.conftest import S3Setup
from tests.local.versioned import put_version, version_of
from tests.support import sample_objects
from tests.support.daemons import wait_until
from tests.support.grpc_calls import get_human, refused
from tests.support.http_calls import ask
from tests.support.sample_objects import REAL, fresh_id

pytestmark = pytest.mark.s3

WITHIN_S = 20.0
INLINE = LocalOptions(enabled=False)


class Callers:
    """A daemon whose origin can hold its answers back, and calls that wait in threads."""

    def __init__(self, on_s3: S3Setup, pool: ThreadPoolExecutor) -> None:
        self.daemon, self.upload, self._store = on_s3.daemon, on_s3.put, on_s3.store
        self._pool = pool
        self._stack = contextlib.ExitStack()
        self._begun: list[Future[Any]] = []

    def client(self, **options: Any) -> CacheClient:
        """Return a client that waits for no successor; it attaches unless `options` forbid it."""
        client = self._stack.enter_context(CacheClient(self.daemon.target, wait_s=0, **options))
        text = fresh_id("warm-up")
        put_version(client, text, 1)
        assert version_of(client.get_text(text)) == 1
        assert client.transport.startswith("inline" if options else "shared_file")
        return client

    def begin(self, call: Callable[[], Any]) -> Future[Any]:
        """Begin a call; the origin answers from now on only after `let_origin_answer`."""
        self._store.hold()
        self._begun.append(self._pool.submit(call))
        return self._begun[-1]

    def terminate_with(self, *, flights: int) -> None:
        """Send SIGTERM once that many flights are under way, and return once the daemon drains."""
        wait_until(lambda: self._flights() >= flights, WITHIN_S, self._describe)
        self.daemon.terminate()
        wait_until(lambda: '"draining"' in self.daemon.log_text(), WITHIN_S)

    def let_origin_answer(self) -> None:
        self._store.release()

    def _describe(self) -> str:
        ended = [str(call.exception() or "answered") for call in self._begun if call.done()]
        return f"{self._flights()} flights; calls that ended: {ended}"

    def _flights(self) -> float:
        return self.daemon.metrics()['cachesvc_queue_depth{queue="flights"}']

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def callers(on_s3: S3Setup) -> Iterator[Callers]:
    with ThreadPoolExecutor(16) as pool:
        made = Callers(on_s3, pool)
        try:
            yield made
        finally:
            made.let_origin_answer()
            made.close()


def test_gets_under_way_at_sigterm_are_answered_to_every_kind_of_caller(callers: Callers) -> None:
    """Promise 9. An answer that named a file would be useless after the page is closed."""
    attached, inline = callers.client(), callers.client(local=INLINE)
    users, clothing = [fresh_id("u") for _ in range(3)], [fresh_id("c") for _ in range(3)]
    owner = fresh_id("o")
    people = {user: sample_objects.person(user, sizes=REAL) for user in users}
    callers.upload(*people.values())
    callers.upload(*(sample_objects.text(one, owner) for one in clothing))
    callers.upload(*(sample_objects.garment(one, owner) for one in clothing))

    async def ask_by_asyncio() -> list[Any]:
        async with AsyncCacheClient(callers.daemon.target, wait_s=0) as client:
            return list(
                await asyncio.gather(
                    client.get_human(users[1]),
                    client.get_garment(clothing[1], owner_id=owner),
                    client.get_text(clothing[1], owner_id=owner),
                )
            )

    calls = [
        callers.begin(lambda: attached.get_human(users[0])),
        callers.begin(lambda: attached.get_text(clothing[0], owner_id=owner)),
        callers.begin(lambda: attached.get_tryon(users[0], clothing[2], owner_id=owner)),
        callers.begin(lambda: inline.get_human(users[2])),
        callers.begin(lambda: inline.get_garment(clothing[0], owner_id=owner)),
        callers.begin(lambda: asyncio.run(ask_by_asyncio())),
    ]
    callers.terminate_with(flights=9)
    callers.let_origin_answer()

    person, *_ = found = [call.result(WITHIN_S) for call in calls]
    assert all(found)
    assert people[users[0]].matches(bytes(person.blob))
    assert callers.daemon.wait() == 0


def test_no_answer_names_a_file_once_the_daemon_drains(callers: Callers) -> None:
    """Promise 9. Otherwise the caller would find the page closed, ask again, and be refused."""
    daemon, user = callers.daemon, fresh_id("u")
    callers.upload(sample_objects.person(user))
    shared = pb.DELIVERY_SHARED_FILE
    call = callers.begin(lambda: get_human(daemon.stub(), user, delivery=shared))
    callers.terminate_with(flights=1)
    callers.let_origin_answer()
    assert call.result(WITHIN_S).WhichOneof("payload") != "file"
    assert daemon.wait() == 0
    daemon.start()
    again = get_human(daemon.stub(), user, delivery=shared)
    assert again.WhichOneof("payload") == "file"  # so a file can deliver this entry


def test_streams_under_way_at_sigterm_are_answered(callers: Callers) -> None:
    client, user = callers.client(), fresh_id("u")
    callers.upload(sample_objects.person(user))
    other = fresh_id("u")
    callers.upload(*(sample_objects.person(other, part) for part in sample_objects.PARTS))

    def stream() -> int:
        request = pb.GetRequest(key=pb.EntryKey(namespace="human_upper_body", id=user))
        return sum(len(part.data) for part in callers.daemon.stub().Get(request, timeout=WITHIN_S))

    calls = [callers.begin(stream), callers.begin(lambda: list(client.warm(other)))]
    callers.terminate_with(flights=4)
    callers.let_origin_answer()
    size, progress = (call.result(WITHIN_S) for call in calls)
    assert size > 0
    assert (progress[-1].done, progress[-1].total, progress[-1].failed) == (3, 3, None)
    assert callers.daemon.wait() == 0


def test_a_put_under_way_at_sigterm_is_acknowledged(callers: Callers) -> None:
    """Promise 1: a Put that was acknowledged during the drain is served in the next life."""
    daemon, user = callers.daemon, fresh_id("u")
    sample = sample_objects.person(user)
    go_on = threading.Event()

    def parts() -> Iterator[pb.PutRequest]:
        key = pb.EntryKey(namespace="human_upper_body", id=user)
        yield pb.PutRequest(header=pb.PutHeader(key=key))
        assert go_on.wait(WITHIN_S)
        yield pb.PutRequest(data=sample.blob())

    put = callers.begin(lambda: daemon.stub().Put(parts(), timeout=WITHIN_S))
    depth = 'cachesvc_queue_depth{queue="puts"}'
    wait_until(lambda: daemon.metrics()[depth] == 1, WITHIN_S)
    daemon.terminate()
    wait_until(lambda: '"draining"' in daemon.log_text(), WITHIN_S)
    with refused() as refusal:
        get_human(daemon.stub(), user)
    assert refusal.status == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    go_on.set()
    assert put.result(WITHIN_S).info.size_bytes == len(sample.blob())
    assert daemon.wait() == 0
    daemon.start()
    assert sample.matches(get_human(daemon.stub(), user).tensors)


def test_local_hits_go_on_until_the_calls_under_way_are_answered(callers: Callers) -> None:
    """Promise 1: local hits stay fresh, because a change unlinks before it is acknowledged."""
    client, user, text = callers.client(), fresh_id("u"), fresh_id("t")
    put_version(client, text, 1)
    client.get_text(text)
    callers.upload(sample_objects.person(user))
    call = callers.begin(lambda: client.get_human(user))
    callers.terminate_with(flights=1)
    assert version_of(client.get_text(text)) == 1
    assert not call.done()
    callers.let_origin_answer()
    assert call.result(WITHIN_S)
    assert callers.daemon.wait() == 0
    assert client.transport.startswith("inline")


def test_http_operations_under_way_at_sigterm_are_answered(callers: Callers) -> None:
    daemon, user = callers.daemon, fresh_id("u")
    callers.upload(sample_objects.person(user))
    body = {"user_id": user, "categories": ["upper_body"]}
    warming = callers.begin(lambda: ask(daemon, "POST", "/cache/warmup", body=body))
    callers.terminate_with(flights=1)
    assert daemon.http("/readyz")[0] == 503
    refusal = ask(daemon, "DELETE", f"/cache/human/{user}")
    assert (refusal.status, refusal.reason) == (503, "DRAINING")
    callers.let_origin_answer()
    answer = warming.result(WITHIN_S)
    assert (answer.status, answer.body["done"]) == (200, 1)
    assert daemon.wait() == 0
