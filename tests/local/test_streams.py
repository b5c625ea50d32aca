"""What becomes of a stream whose entry is erased, or whose caller does not read it?

Promises 1 and 5. Callers of any language use the streamed Get; these tests use the stub.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from cachesvc_client import CacheClient
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.local.versioned import put_version
from tests.support.daemons import Daemon, stub_on, wait_until
from tests.support.grpc_calls import TIMEOUT_S, refused
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
MIB = 1 << 20
Code = grpc.StatusCode
ENDS_WITHIN_S = 20.0


def stream(daemon: Daemon, text: str) -> Any:
    """Begin a Get on a channel of its own, and return the call after its first message.

    gRPC reads no more messages than the caller asks for: the rest waits in the daemon.
    """
    request = pb.GetRequest(key=pb.EntryKey(namespace="text", id=text))
    call = stub_on(daemon.channel()).Get(request, timeout=TIMEOUT_S)
    assert next(call).WhichOneof("part") == "info"
    return call


@pytest.mark.parametrize(
    "limits",
    [{}, {"L1__MAX_BYTES": str(4 * MIB), "L1__ALLOW_HEAP": "true"}],
    ids=["a file of L1", "the heap"],
)
def test_a_stream_under_way_ends_with_an_erasure_and_never_with_zeros(
    new_daemon: NewDaemon, new_client: NewClient, limits: dict[str, str]
) -> None:
    daemon, text = new_daemon(**limits), fresh_id("text")
    client = new_client(daemon)
    put_version(client, text, 0x0101010101010101, size_bytes=32 * MIB)
    call = stream(daemon, text)
    received = [next(call).data]
    client.invalidate(clothing_id=text, erase=True)
    with refused() as refusal:
        received += [message.data for message in call]
    assert refusal.status == (Code.ABORTED, "ERASED")
    # Messages that gRPC had taken before the erasure still arrive.
    assert len(received) < 16
    words = b"".join(received)[64 * 1024 :]
    assert words.count(1) == len(words)


def test_a_stream_under_way_survives_an_invalidation_that_erases_nothing(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    client = new_client(daemon)
    put_version(client, text, 7, size_bytes=32 * MIB)
    call = stream(daemon, text)
    client.invalidate(clothing_id=text)
    wait_until(lambda: client.stats().held_bytes > 31 * MIB, ENDS_WITHIN_S)
    assert sum(len(message.data) for message in call) > 31 * MIB
    wait_until(lambda: client.stats().held_bytes == 0, ENDS_WITHIN_S)


def test_streams_that_nobody_reads_are_inside_l1s_limit(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    limit = 24 * MIB
    daemon = new_daemon(L1__MAX_BYTES=str(limit))
    client = new_client(daemon)
    calls: list[Any] = []
    statuses: list[str] = []
    for _ in range(12):
        text = fresh_id("text")
        put_version(client, text, 7, size_bytes=6 * MIB)
        try:
            calls.append(stream(daemon, text))
            statuses.append("")
        except grpc.RpcError as exc:
            statuses.append(dict(exc.trailing_metadata())["cachesvc-reason"])
        stats = client.stats()
        # One stream from the heap may exceed the limit; otherwise none larger than L1 could be
        # streamed.
        assert stats.memory.size_bytes + stats.held_bytes <= limit + 7 * MIB
    assert "TOO_MANY_STREAMS" in statuses
    assert statuses.count("") >= 3
    for call in calls:
        call.cancel()
    wait_until(lambda: client.stats().held_bytes == 0, ENDS_WITHIN_S)


def test_a_stream_that_nobody_reads_ends(new_daemon: NewDaemon, new_client: NewClient) -> None:
    daemon, text = new_daemon(GRPC__STREAM_STALL_S="0.5"), fresh_id("text")
    client = new_client(daemon)
    put_version(client, text, 7, size_bytes=32 * MIB)
    call = stream(daemon, text)
    client.invalidate(clothing_id=text)
    wait_until(lambda: client.stats().held_bytes > 31 * MIB, ENDS_WITHIN_S)
    # The stream ends although its caller does nothing.
    wait_until(lambda: client.stats().held_bytes == 0, ENDS_WITHIN_S)
    with refused() as refusal:
        for _ in call:
            pass
    assert refusal.status == (Code.DEADLINE_EXCEEDED, "STREAM_STALLED")
