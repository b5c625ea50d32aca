"""Carries calls to the daemon and waits for one that is away: the asyncio way.

A channel belongs to the event loop that first used it, so each loop gets its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol, TypeVar

import grpc
import grpc.aio

from cachesvc_client import _probe
from cachesvc_client._door import Door, Nobody
from cachesvc_client._fork import note_asyncio_use, refuse_if_forked_after_asyncio
from cachesvc_client._options import HEALTH_PATH
from cachesvc_client._patience import Patience
from cachesvc_client._route import Route
from cachesvc_client.answers import view_of_answer
from cachesvc_client.errors import (
    CacheServiceError,
    CacheUnavailable,
    UnreadableAnswer,
    error_of_rpc,
    is_away,
)
from cachesvc_client.requests import Call, Upload

A = TypeVar("A")


class AsyncLink(Protocol):
    """As `Link`, for asyncio. If a call is cancelled, the daemon is told and nothing is held."""

    async def ask(self, call: Call[A], timeout_s: float) -> A: ...

    async def collect(self, call: Call[A], timeout_s: float) -> A: ...

    def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]: ...

    async def send(self, upload: Upload[A], timeout_s: float) -> A: ...

    async def close(self) -> None: ...


class AsyncConnection(NamedTuple):
    """As `Connection`."""

    door: Door
    channel: grpc.aio.Channel


class AsyncGrpcLink:
    """A lazy channel for each event loop."""

    def __init__(self, route: Route, wait_s: float) -> None:
        self._route = route
        self._metadata = route.metadata
        self._wait_s = wait_s
        self._connections: dict[asyncio.AbstractEventLoop, AsyncConnection] = {}
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
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is not None:
            await connection.channel.close()
            connection.door.close()

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
            except (grpc.RpcError, Nobody) as exc:
                error = await self._explained(exc, call, patience)
                if error is None:
                    continue  # another daemon is there by now
                if not patience.may_retry(error, time.monotonic()):
                    raise error from exc
            await asyncio.sleep(patience.next_pause(time.monotonic()))
            await self._await_daemon(patience, error)

    async def _explained(
        self, exc: grpc.RpcError | Nobody, call: Call[Any], patience: Patience
    ) -> CacheServiceError | None:
        """As `GrpcLink._explained`."""
        if isinstance(exc, Nobody):
            return CacheUnavailable(str(exc))
        error = error_of_rpc(exc, call.asked_for)
        if error.reason or not is_away(error):
            return error
        try:
            if self._reopen():
                return None
        except Nobody as nobody:
            return CacheUnavailable(str(nobody))
        probe = self._route.begin_probe()
        if probe is None:
            return error
        within_s = min(_probe.WITHIN_S, patience.time_left(time.monotonic()))
        try:
            cause = await asyncio.wait_for(asyncio.wrap_future(probe), within_s)
        except asyncio.TimeoutError:
            return error
        return self._route.explained(error, cause)

    async def _await_daemon(self, patience: Patience, error: CacheServiceError) -> None:
        """As `GrpcLink._await_daemon`."""
        why = "" if error.reason else error.message
        while True:
            try:
                self._reopen()
                await self._look(patience.wait_left(time.monotonic()))
                return
            except Nobody as exc:
                why = str(exc)
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
            if patience.wait_left(time.monotonic()) <= 0:
                raise self._route.away(self._wait_s, error.reason, why)
            await asyncio.sleep(patience.next_pause(time.monotonic()))

    async def _look(self, wait_s: float) -> None:
        """As `GrpcLink._look`."""
        channel = self._channel()
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH_PATH)
        within_s = min(wait_s, self._route.look_s)
        await check(b"", timeout=within_s, wait_for_ready=True, metadata=self._metadata)

    def _reopen(self) -> bool:
        """As `GrpcLink._reopen`."""
        loop = asyncio.get_running_loop()
        known = self._connections.get(loop)
        if known is None:
            return False
        door = self._route.another(known.door)
        if door is None:
            return False
        # Other tasks' calls may still use the old channel: it goes with the last of them.
        self._connections[loop] = AsyncConnection(door, self._route.aio_channel(door))
        return True

    def _channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise RuntimeError("this client is closed")
        refuse_if_forked_after_asyncio()
        note_asyncio_use()
        loop = asyncio.get_running_loop()
        connection = self._connections.get(loop)
        if connection is None:
            self._forget_closed_loops()
            door = self._route.open()
            connection = AsyncConnection(door, self._route.aio_channel(door))
            self._connections[loop] = connection
        return connection.channel

    def _forget_closed_loops(self) -> None:
        """Let go of connections that nobody can use or close any more.

        A channel refers to its loop, so weak keys would never go.
        """
        for loop in tuple(self._connections):
            if loop.is_closed():
                self._connections.pop(loop, None)


async def _first_of(messages: AsyncGenerator[A, None]) -> A:
    async for message in messages:
        return message
    raise UnreadableAnswer("the stream ended without an answer")
