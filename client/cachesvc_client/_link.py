"""Carries calls to the daemon and waits for one that is away: the sync way.

The channel is made by the first call, in the process that makes the call. After a
fork the child starts anew and never touches its parent's, not even to close it:
that would close the parent's connection, or hang on a lock no thread will release.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import grpc

from cachesvc_client._credentials import Metadata
from cachesvc_client._fork import refuse_if_forked_after_asyncio
from cachesvc_client._options import CHANNEL_OPTIONS, HEALTH_PATH
from cachesvc_client._patience import Patience
from cachesvc_client.answers import view_of_answer
from cachesvc_client.errors import CacheUnavailable, UnreadableAnswer, error_of_rpc
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


class GrpcLink:
    """A lazy channel for each process. Safe for use from many threads."""

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
        # By pid: what a forked child inherits stays in here, untouched, for good.
        self._channels: dict[int, grpc.Channel] = {}
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
        channel = self._channels.pop(os.getpid(), None)
        if channel is not None:
            channel.close()

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
            except grpc.RpcError as exc:
                error = error_of_rpc(exc, call.asked_for)
                if not patience.may_retry(error, time.monotonic()):
                    raise error from exc
            # The caller's own thread, within its deadline and `wait_s`.
            time.sleep(patience.next_pause(time.monotonic()))
            self._await_daemon(patience.wait_left(time.monotonic()), error.reason)

    def _await_daemon(self, wait_s: float, reason: str) -> None:
        """Return once anyone answers. Raises CacheUnavailable after `wait_s`.

        The call itself cannot wait for the connection: its deadline is for the fill, and
        gRPC has one for both.
        """
        channel = self._channel()
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(HEALTH_PATH)
        try:
            check(b"", timeout=wait_s, wait_for_ready=True, metadata=self._metadata)
        except grpc.RpcError as exc:
            if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise away(self._target, self._wait_s, reason) from exc

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
        channel = self._channels.get(os.getpid())
        if channel is not None:
            return channel
        refuse_if_forked_after_asyncio()
        # Lock-free, because a lock may be held by a thread that a fork left behind. Two
        # threads may both build one: setdefault keeps the first, and connecting is lazy.
        fresh = self._connected()
        channel = self._channels.setdefault(os.getpid(), fresh)
        if channel is not fresh:
            fresh.close()
        return channel

    def _connected(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(self._target, self._credentials, options=CHANNEL_OPTIONS)


def away(target: str, wait_s: float, reason: str) -> CacheUnavailable:
    """Return the error for a daemon that did not come back in time; `reason` as it last said."""
    return CacheUnavailable(f"no daemon answered at {target} within {wait_s:g} s", reason=reason)


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
