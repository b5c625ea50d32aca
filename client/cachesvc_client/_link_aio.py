"""Carries calls to the daemon, and waits for a daemon that is away.

`_link.py` is made from this file by `make client`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

import grpc

from cachesvc_client import _probe
from cachesvc_client._channels_aio import Channels
from cachesvc_client._door import Nobody
from cachesvc_client._options import HEALTH_PATH, LOOK_S
from cachesvc_client._patience import Outage, Patience
from cachesvc_client._reading import view_of_answer
from cachesvc_client._route import Route
from cachesvc_client._streams_aio import leave
from cachesvc_client._waiting_aio import TimedOut, messages_of, off_main, pause, result_of
from cachesvc_client.errors import (
    CacheServiceError,
    CacheUnavailable,
    DeadlineExceeded,
    UnreadableAnswer,
    error_of_rpc,
    is_away,
)
from cachesvc_client.requests import Call, Upload

A = TypeVar("A")


class AsyncLink(Protocol):
    """A client's connection to a daemon; `testing` has a link in memory.

    Every method raises CacheServiceError. If a call is cancelled, the daemon is told and
    nothing is held.
    """

    async def ask(self, call: Call[A], timeout_s: float) -> A:
        """Return the answer of a call with one answer."""

    async def collect(self, call: Call[A], timeout_s: float) -> A:
        """Read a streamed answer to its end and return the result of the last message."""

    def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]:
        """Yield each message of a streamed answer as it comes."""

    async def send(self, upload: Upload[A], timeout_s: float) -> A:
        """Send a streamed request and return its answer."""

    async def close(self) -> None:
        """Close the connection. Harmless when repeated."""


class AsyncGrpcLink:
    """Carries calls over gRPC, on channels that the first call makes."""

    def __init__(self, route: Route, wait_s: float) -> None:
        self._route = route
        self._metadata = route.metadata
        self._outage = Outage(wait_s)
        self._channels = Channels(route)

    async def ask(self, call: Call[A], timeout_s: float) -> A:
        async def once(left_s: float) -> A:
            # No deserializer: only this code holds the bytes object, so it may be written to.
            method = self._channels.unary_unary(call.path)
            answer = await method(call.request, timeout=left_s, metadata=self._metadata)
            return call.read(view_of_answer(answer))

        answer: A = await off_main(self._retrying, call, timeout_s, once)
        return answer

    async def collect(self, call: Call[A], timeout_s: float) -> A:
        async def once(left_s: float) -> A:
            messages = self._messages(call, left_s)
            last = await _first_of(messages)
            async for message in messages:
                last = message
            return last

        answer: A = await off_main(self._retrying, call, timeout_s, once)
        return answer

    async def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]:
        # Only the start is repeated: yielded messages cannot be taken back.
        async def start(left_s: float) -> tuple[A, AsyncGenerator[A, None]]:
            messages = self._messages(call, left_s)
            return await _first_of(messages), messages

        first, rest = await off_main(self._retrying, call, timeout_s, start)
        async with aclosing(rest):
            yield first
            try:
                async for message in rest:
                    yield message
            except grpc.RpcError as exc:
                raise error_of_rpc(exc, call.asked_for) from exc

    async def send(self, upload: Upload[A], timeout_s: float) -> A:
        async def once(left_s: float) -> A:
            method = self._channels.stream_unary(upload.call.path)
            answer = await method(upload.messages(), timeout=left_s, metadata=self._metadata)
            return upload.call.read(memoryview(answer))

        answer: A = await off_main(self._retrying, upload.call, timeout_s, once)
        return answer

    async def close(self) -> None:
        await off_main(self._channels.close)

    async def _messages(self, call: Call[A], left_s: float) -> AsyncGenerator[A, None]:
        method = self._channels.unary_stream(call.path)
        stream = method(call.request, timeout=left_s, metadata=self._metadata)
        try:
            async for message in messages_of(stream):
                yield call.read(memoryview(message))
        finally:
            await off_main(leave, stream)  # for a caller that stops early

    async def _retrying(
        self, call: Call[Any], timeout_s: float, attempt: Callable[[float], Awaitable[A]]
    ) -> A:
        if self._outage.is_known:
            await self._probe()
        patience = Patience(time.monotonic() + timeout_s, self._outage)
        while True:
            try:
                answer = await attempt(patience.time_left(time.monotonic()))
            except (grpc.RpcError, Nobody) as exc:
                error = await self._explained(exc, call, patience)
                if error is None:
                    continue  # another daemon is there by now
                if not patience.may_retry(error, time.monotonic()):
                    raise error from exc
            else:
                self._outage.end()
                return answer
            await pause(patience.next_pause(time.monotonic()))
            await self._await_daemon(patience, error)

    async def _probe(self) -> None:
        """Look for a daemon that has been away for long. Raises CacheUnavailable at once.

        With 50 threads, each of which would wait for a dead daemon anew:

            A: waits `wait_s` in vain | B: fails at once | C: looks: nobody | ... | D: looks: there
        """
        if not self._outage.may_probe(time.monotonic()):
            raise self._route.away(self._outage.wait_s, "", "")
        try:
            self._channels.reopen()
            await self._look(LOOK_S, waits=False)
        except Nobody as exc:
            raise self._still_away(str(exc)) from exc
        except grpc.RpcError as exc:
            error = error_of_rpc(exc)
            if is_away(error) or isinstance(error, DeadlineExceeded):
                raise self._still_away(error.message) from exc
        finally:
            self._outage.end_probe()
        self._outage.end()

    def _still_away(self, why: str) -> CacheUnavailable:
        self._outage.observed(time.monotonic())
        return self._route.away(self._outage.wait_s, "", why)

    async def _explained(
        self, exc: grpc.RpcError | Nobody, call: Call[Any], patience: Patience
    ) -> CacheServiceError | None:
        """Return the failure's cause; None = ask again, of another daemon.

        Raises CacheUnreachable for a cause that waiting would not change.
        """
        if isinstance(exc, Nobody):
            return CacheUnavailable(str(exc))
        error = error_of_rpc(exc, call.asked_for)
        if error.reason or not is_away(error):
            return error
        try:
            if self._channels.reopen():
                return None
        except Nobody as nobody:
            return CacheUnavailable(str(nobody))
        probe = self._route.begin_probe()
        if probe is None:
            return error
        within_s = min(_probe.WITHIN_S, patience.time_left(time.monotonic()))
        try:
            cause = await result_of(probe, within_s)
        except TimedOut:
            return error
        return self._route.explained(error, cause)

    async def _await_daemon(self, patience: Patience, error: CacheServiceError) -> None:
        """Return once a daemon answers. Raises CacheUnavailable after `wait_s`.

        The call itself cannot wait for the connection: its deadline is for the fill, and gRPC has
        one deadline for both.
        """
        why = "" if error.reason else error.message
        while True:
            try:
                self._channels.reopen()
                await self._look(patience.wait_left(time.monotonic()))
                return
            except Nobody as exc:
                why = str(exc)
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
            if not patience.may_wait(time.monotonic()):
                raise self._route.away(self._outage.wait_s, error.reason, why)
            await pause(patience.next_pause(time.monotonic()))

    async def _look(self, wait_s: float, *, waits: bool = True) -> None:
        """Raise RpcError, DEADLINE_EXCEEDED, if no daemon answers. Raises Nobody.

        Unless it `waits` for a connection, the error may also be UNAVAILABLE.
        """
        check = self._channels.unary_unary(HEALTH_PATH)
        within_s = min(wait_s, LOOK_S)
        await check(b"", timeout=within_s, wait_for_ready=waits, metadata=self._metadata)


async def _first_of(messages: AsyncGenerator[A, None]) -> A:
    """Return the next message. Raises UnreadableAnswer if the stream has none."""
    async for message in messages:
        return message
    raise UnreadableAnswer("the stream ended without an answer")
