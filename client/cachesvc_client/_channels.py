"""The channels of a client: one for each process.

The channel is made by the first call, in the process that makes the call. After a
fork the child starts anew and never touches its parent's, not even to close it:
that would close the parent's connection, or hang on a lock no thread will release.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import grpc

from cachesvc_client._door import Door
from cachesvc_client._fork import refuse_if_forked_after_asyncio
from cachesvc_client._route import Route


class Connection(NamedTuple):
    """A channel and the way in that it uses, which stays open as long as the channel lives."""

    door: Door
    channel: grpc.Channel


class Channels:
    """The channel of each process, and its methods. Safe for use from many threads."""

    def __init__(self, route: Route) -> None:
        self._route = route
        # By pid: what a forked child inherits stays in here, untouched, for good.
        self._connections: dict[int, Connection] = {}
        self._methods: dict[
            str, tuple[grpc.Channel, grpc.UnaryUnaryMultiCallable[bytes, bytes]]
        ] = {}
        self._closed = False

    def unary_unary(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return the method of this process's channel; making one takes 20 us."""
        channel = self.current()
        made_for, method = self._methods.get(path, (None, None))
        if made_for is not channel or method is None:
            method = channel.unary_unary(path)
            self._methods[path] = (channel, method)
        return method

    def unary_stream(self, path: str) -> grpc.UnaryStreamMultiCallable[bytes, bytes]:
        return self.current().unary_stream(path)

    def stream_unary(self, path: str) -> grpc.StreamUnaryMultiCallable[bytes, bytes]:
        return self.current().stream_unary(path)

    def current(self) -> grpc.Channel:
        """Return this process's channel. Raises Nobody, CacheUnreachable, RuntimeError."""
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

    def reopen(self) -> bool:
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

    def close(self) -> None:
        """Close this process's channel. Harmless when repeated."""
        self._closed = True
        connection = self._connections.pop(os.getpid(), None)
        if connection is not None:
            connection.channel.close()
            connection.door.close()
