"""Is a call whose caller left, or does not read, counted with the status that the caller saw?

A caller that still listens is told that status, too. The tests use real gRPC, which decides whether
a write fails before or after the call is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from cachesvc.core.access import Principal
from cachesvc.edge.grpc.callers import LOOPBACK
from cachesvc.edge.grpc.calls import Calls, Context, code_of_leaving
from cachesvc.edge.grpc.methods import SERVICE_NAME
from cachesvc.edge.statuses import REASON_KEY, Code

# More than gRPC sends to a caller that has not read anything.
MESSAGE = bytes(8 << 20)
LONG_S = 30.0
SHORT_S = 0.3


@pytest.mark.parametrize(
    "remaining_s",
    [
        -0.3,
        0.0,
        pytest.param(0.004, id="the call took 4 ms to arrive"),
        pytest.param(0.1, id="10.001 s, which is 10.1 s on the wire"),
    ],
)
def test_a_caller_that_left_at_its_deadline_saw_that(remaining_s: float) -> None:
    assert code_of_leaving(remaining_s) is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("remaining_s", [None, 0.5, 30.0])
def test_a_caller_that_left_before_its_deadline_cancelled(remaining_s: float | None) -> None:
    assert code_of_leaving(remaining_s) is Code.CANCELLED


class Endless:
    """A streaming call that never runs out of messages, over a real server and channel."""

    def __init__(self, default_deadline_s: float) -> None:
        self.calls = Calls(default_deadline_s, stream_stall_s=30.0)
        self.begun = asyncio.Event()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[grpc.aio.UnaryStreamMultiCallable[bytes, bytes]]:
        answer = self.calls.streaming("Get", self._messages, self._admit)
        methods = {"Get": grpc.unary_stream_rpc_method_handler(answer)}
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE_NAME, methods),)
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        options = (("grpc.max_receive_message_length", -1),)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
                await channel.channel_ready()
                yield channel.unary_stream(f"/{SERVICE_NAME}/Get")
        finally:
            await server.stop(grace=None)

    async def ended_as(self) -> dict[str, int]:
        """Return the calls' statuses once all of them have ended."""
        assert await self.calls.drain(LONG_S)
        by_code = self.calls.tally.by_rpc["Get"].by_code
        return {code: calls for code, calls in by_code.items() if calls}

    def _admit(self, received: bytes, _: Context) -> tuple[Principal, bytes]:
        return LOOPBACK, received

    async def _messages(self, received: bytes, _: Principal) -> AsyncIterator[bytes]:
        self.begun.set()
        while True:
            yield MESSAGE


async def read_all(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
    async for message in call:
        assert message == MESSAGE


@pytest.mark.parametrize("reads_first", [False, True])
async def test_a_caller_that_cancels_amid_a_message_is_counted_as_cancelled(
    reads_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    endless = Endless(LONG_S)
    async with endless.served() as get:
        call = get(b"")
        await endless.begun.wait()
        if reads_first:
            assert await call.read() == MESSAGE
        call.cancel()
        assert await endless.ended_as() == {"CANCELLED": 1}
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_caller_whose_deadline_passes_amid_a_message_is_counted_as_that() -> None:
    endless = Endless(LONG_S)
    async with endless.served() as get:
        call = get(b"", timeout=SHORT_S)
        await endless.begun.wait()
        assert await call.code() is Code.DEADLINE_EXCEEDED
        assert await endless.ended_as() == {"DEADLINE_EXCEEDED": 1}


async def test_a_caller_without_a_deadline_that_does_not_read_is_told_when_it_does() -> None:
    """The ended call does not hold up a drain meanwhile."""
    endless = Endless(SHORT_S)
    async with endless.served() as get:
        call = get(b"")
        await endless.begun.wait()
        assert await endless.ended_as() == {"DEADLINE_EXCEEDED": 1}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read_all(call)
    assert refused.value.code() is Code.DEADLINE_EXCEEDED
    assert dict(refused.value.trailing_metadata())[REASON_KEY] == "DEADLINE"
