"""Carries calls to the daemon and waits for one that is away: the sync way.

The channel is made by the first call, in the process that makes the call. After a
fork the child starts anew and never touches its parent's, not even to close it:
that would close the parent's connection, or hang on a lock no thread will release.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple, Protocol, TypeVar

import grpc

from cachesvc_client import _probe
from cachesvc_client._door import Door, Nobody
from cachesvc_client._fork import refuse_if_forked_after_asyncio
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


class Link(Protocol):
    """What a client needs of the way to a daemon; `testing` has one in memory.

    Every method raises CacheServiceError.
    """

    def ask(self, call: Call[A], timeout_s: float) -> A:
        """Return the answer of a call with one answer."""

    def collect(self, call: Call[A], timeout_s: float) -> A:
        """Read a streamed answer to its end and return what the last message gave."""

    def follow(self, call: Call[A], timeout_s: float) -> Iterator[A]:
        """Yield each message of a streamed answer as it comes."""

    def send(self, upload: Upload[A], timeout_s: float) -> A:
        """Send a streamed request and return its answer."""

    def close(self) -> None:
        """Let go of the connection. Harmless when repeated."""


class Connection(NamedTuple):
    """A channel and the way in that it uses, which stays open as long as the channel lives."""

    door: Door
    channel: grpc.Channel


class GrpcLink:
    """A lazy channel for each process. Safe for use from many threads."""

    def __init__(self, route: Route, wait_s: float) -> None:
        self._route = route
        self._metadata = route.metadata
        self._wait_s = wait_s
        # By pid: what a forked child inherits stays in here, untouched, for good.
        self._connections: dict[int, Connection] = {}
        self._methods: dict[
            str, tuple[grpc.Channel, grpc.UnaryUnaryMultiCallable[bytes, bytes]]
        ] = {}
        self._closed = False

    def ask(self, call: Call[A], timeout_s: float) -> A:
        return self._retrying(call, timeout_s, lambda left_s: self._ask_once(call, left_s))

    def collect(self, call: Call[A], timeout_s: float) -> A:
        return self._retrying(call, timeout_s, lambda left_s: _last(self._messages(call, left_s)))

    def follow(self, call: Call[A], timeout_s: float) -> Iterator[A]:
        # Only the start is repeated: what was yielded cannot be taken back.
        def start(left_s: float) -> tuple[A, Iterator[A]]:
            messages = self._messages(call, left_s)
            return first_of(messages), messages

        first, rest = self._retrying(call, timeout_s, start)
        yield first
        try:
            yield from rest
        except grpc.RpcError as exc:
            raise error_of_rpc(exc, call.asked_for) from exc

    def send(self, upload: Upload[A], timeout_s: float) -> A:
        def once(left_s: float) -> A:
            channel = self._channel()
            method: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(
                upload.call.path
            )
            answer = method(upload.messages(), timeout=left_s, metadata=self._metadata)
            return upload.call.read(memoryview(answer))

        return self._retrying(upload.call, timeout_s, once)

    def close(self) -> None:
        self._closed = True
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.channel.close()
            connection.door.close()

    def _ask_once(self, call: Call[A], left_s: float) -> A:
        # No deserializer: the bytes object comes to us alone, so it may be written to.
        answer = self._unary(call.path)(call.request, timeout=left_s, metadata=self._metadata)
        return call.read(view_of_answer(answer))

    def _messages(self, call: Call[A], left_s: float) -> Iterator[A]:
        channel = self._channel()
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(call.path)
        stream = method(call.request, timeout=left_s, metadata=self._metadata)
        try:
            for message in stream:
                yield call.read(memoryview(message))
        finally:
            stream.cancel()  # a caller that stops early; nothing once the stream has ended

    def _retrying(self, call: Call[Any], timeout_s: float, attempt: Callable[[float], A]) -> A:
        patience = Patience(time.monotonic() + timeout_s, self._wait_s)
        while True:
            try:
                return attempt(patience.time_left(time.monotonic()))
            except (grpc.RpcError, Nobody) as exc:
                error = self._explained(exc, call, patience)
                if error is None:
                    continue  # another daemon is there by now
                if not patience.may_retry(error, time.monotonic()):
                    raise error from exc
            # The caller's own thread, within its deadline and `wait_s`.
            time.sleep(patience.next_pause(time.monotonic()))
            self._await_daemon(patience, error)

    def _explained(
        self, exc: grpc.RpcError | Nobody, call: Call[Any], patience: Patience
    ) -> CacheServiceError | None:
        """Return what the failure was; None = ask again, of another daemon.

        Raises CacheUnreachable for what waiting would not change.
        """
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
            return self._route.explained(error, probe.result(within_s))
        except futures.TimeoutError:
            return error

    def _await_daemon(self, patience: Patience, error: CacheServiceError) -> None:
        """Return once anyone answers. Raises CacheUnavailable after `wait_s`.

        The call itself cannot wait for the connection: its deadline is for the fill, and
        gRPC has one for both.
        """
        why = "" if error.reason else error.message
        while True:
            try:
                self._reopen()
                self._look(patience.wait_left(time.monotonic()))
                return
            except Nobody as exc:
                why = str(exc)
            except grpc.RpcError as exc:
                if exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    return
            if patience.wait_left(time.monotonic()) <= 0:
                raise self._route.away(self._wait_s, error.reason, why)
            # The caller's own thread, within its deadline and `wait_s`.
            time.sleep(patience.next_pause(time.monotonic()))

    def _look(self, wait_s: float) -> None:
        """Raise RpcError, DEADLINE_EXCEEDED, if nobody answers. Raises Nobody."""
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        check = self._channel().unary_unary(HEALTH_PATH)
        within_s = min(wait_s, self._route.look_s)
        check(b"", timeout=within_s, wait_for_ready=True, metadata=self._metadata)

    def _reopen(self) -> bool:
        """Take the way to another daemon, if one is there by now; return whether it is.

        Raises Nobody, CacheUnreachable.
        """
        known = self._connections.get(os.getpid())
        if known is None:
            return False
        door = self._route.another(known.door)
        if door is None:
            return False
        # Calls of other threads may still use the old channel: it goes with the last of them.
        self._connections[os.getpid()] = Connection(door, self._route.channel(door))
        self._methods.clear()
        return True

    def _unary(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return the method of this process's channel; making one takes 20 us."""
        channel = self._channel()
        made_for, method = self._methods.get(path, (None, None))
        if made_for is not channel or method is None:
            method = channel.unary_unary(path)
            self._methods[path] = (channel, method)
        return method

    def _channel(self) -> grpc.Channel:
        if self._closed:
            raise RuntimeError("this client is closed")
        connection = self._connections.get(os.getpid())
        if connection is not None:
            return connection.channel
        refuse_if_forked_after_asyncio()
        # Lock-free, because a lock may be held by a thread that a fork left behind. Two
        # threads may both build one: setdefault keeps the first, and connecting is lazy.
        door = self._route.open()
        fresh = Connection(door, self._route.channel(door))
        connection = self._connections.setdefault(os.getpid(), fresh)
        if connection is not fresh:
            fresh.channel.close()
        return connection.channel


def first_of(messages: Iterator[A]) -> A:
    """Return the next message. Raises UnreadableAnswer if the stream has none."""
    for message in messages:
        return message
    raise UnreadableAnswer("the stream ended without an answer")


def _last(messages: Iterator[A]) -> A:
    last = first_of(messages)
    for message in messages:
        last = message
    return last
