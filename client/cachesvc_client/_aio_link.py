"""Carries calls to the daemon and waits for one that is away: the asyncio way.

A channel belongs to the event loop that first used it, so each loop gets its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from cachesvc_client._credentials import Metadata
from cachesvc_client._fork import note_asyncio_use, refuse_if_forked_after_asyncio
from cachesvc_client._link import away
from cachesvc_client._options import CHANNEL_OPTIONS, HEALTH_PATH
from cachesvc_client._patience import Patience
from cachesvc_client.answers import view_of_answer
from cachesvc_client.errors import UnreadableAnswer, error_of_rpc
from cachesvc_client.requests import Call, Upload

A = TypeVar("A")


class AioLink(Protocol):
    """As `Link`, for asyncio. If a call is cancelled, the daemon is told and nothing is held."""

    async def ask(self, call: Call[A], timeout_s: float) -> A: ...

    async def collect(self, call: Call[A], timeout_s: float) -> A: ...

    def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]: ...

    async def send(self, upload: Upload[A], timeout_s: float) -> A: ...

    async def close(self) -> None: ...


class GrpcAioLink:
    """A lazy channel for each event loop."""

    def __init__(
        self,
        target: str,
        wait_s: float,
        credentials: grpc.ChannelCredentials | None,
        metadata: Metadata = None,
    ) -> None:
        self._target = target
        self._credentials = credentials
        # Of every call: the caller's token.
        self._metadata = metadata
        self._wait_s = wait_s
        self._channels: dict[asyncio.AbstractEventLoop, grpc.aio.Channel] = {}
        self._closed = False

    async def ask(self, call: Call[A], timeout_s: float) -> A:
        async def once(left_s: float) -> A:
            # No deserializer: the bytes object comes to us alone, so it may be written to.
            channel = self._channel()
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.path)
            answer = await method(call.request, timeout=left_s, metadata=self._metadata)
            return call.read(view_of_answer(answer))

        return await self._retrying(call, timeout_s, once)

    async def collect(self, call: Call[A], timeout_s: float) -> A:
        async def once(left_s: float) -> A:
            messages = self._messages(call, left_s)
            last = await _first_of(messages)
            async for message in messages:
                last = message
            return last

        return await self._retrying(call, timeout_s, once)

    async def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]:
        # Only the start is repeated: what was yielded cannot be taken back.
        async def start(left_s: float) -> tuple[A, AsyncGenerator[A, None]]:
            messages = self._messages(call, left_s)
            return await _first_of(messages), messages

        first, rest = await self._retrying(call, timeout_s, start)
        async with aclosing(rest):
            yield first
            try:
                async for message in rest:
                    yield message
            except grpc.RpcError as exc:
                raise error_of_rpc(exc, call.asked_for) from exc

    async def send(self, upload: Upload[A], timeout_s: float) -> A:
        async def once(left_s: float) -> A:
            channel = self._channel()
            method: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
                upload.call.path
            )
            answer = await method(upload.messages(), timeout=left_s, metadata=self._metadata)
            return upload.call.read(memoryview(answer))

        return await self._retrying(upload.call, timeout_s, once)

    async def close(self) -> None:
        self._closed = True
        self._forget_closed_loops()
        channel = self._channels.pop(asyncio.get_running_loop(), None)
        if channel is not None:
            await channel.close()

    async def _messages(self, call: Call[A], left_s: float) -> AsyncGenerator[A, None]:
        channel = self._channel()
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(call.path)
        stream = method(call.request, timeout=left_s, metadata=self._metadata)
        try:
            async for message in stream:
                yield call.read(memoryview(message))
        finally:
            stream.cancel()  # a caller that stops early; nothing once the stream has ended

    async def _retrying(
        self, call: Call[Any], timeout_s: float, attempt: Callable[[float], Awaitable[A]]
    ) -> A:
        patience = Patience(time.monotonic() + timeout_s, self._wait_s)
        while True:
            try:
                return await attempt(patience.time_left(time.monotonic()))
            except grpc.RpcError as exc:
                error = error_of_rpc(exc, call.asked_for)
                if not patience.may_retry(error, time.monotonic()):
                    raise error from exc
            await asyncio.sleep(patience.next_pause(time.monotonic()))
            await self._await_daemon(patience.wait_left(time.monotonic()), error.reason)

    async def _await_daemon(self, wait_s: float, reason: str) -> None:
        """As `GrpcLink._await_daemon`."""
        channel = self._channel()
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH_PATH)
        try:
            await check(b"", timeout=wait_s, wait_for_ready=True, metadata=self._metadata)
        except grpc.RpcError as exc:
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise away(self._target, self._wait_s, reason) from exc

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise RuntimeError("this client is closed")
        refuse_if_forked_after_asyncio()
        note_asyncio_use()
        loop = asyncio.get_running_loop()
        channel = self._channels.get(loop)
        if channel is None:
            self._forget_closed_loops()
            channel = self._connected()
            self._channels[loop] = channel
        return channel

    def _forget_closed_loops(self) -> None:
        """Let go of connections that nobody can use or close any more.

        A channel refers to its loop, so weak keys would never go.
        """
        for loop in tuple(self._channels):
            if loop.is_closed():
                self._channels.pop(loop, None)

    def _connected(self) -> grpc.aio.Channel:
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)


async def _first_of(messages: AsyncGenerator[A, None]) -> A:
    async for message in messages:
        return message
    raise UnreadableAnswer("the stream ended without an answer")
