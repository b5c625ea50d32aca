"""The channels of a client: one for each process.

The first call in a process makes the process's channel. A forked child makes its own channel and
never touches its parent's: closing that would close the parent's connection, or hang on a lock that
no thread will release.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import grpc

from cachesvc_client._door import Door
from cachesvc_client._fork import refuse_if_forked_after_asyncio
from cachesvc_client._route import Route


class Connection(NamedTuple):
    """A channel and its door, which stays open as long as the channel lives."""

    door: Door
    channel: grpc.Channel


class Channels:
    """The channel of each process, and its methods. Safe for use from many threads."""

    def __init__(self, route: Route) -> None:
        self._route = route
        # By pid: connections that a forked child inherits stay here untouched.
        self._connections: dict[int, Connection] = {}
        self._methods: dict[
            str, tuple[grpc.Channel, grpc.UnaryUnaryMultiCallable[bytes, bytes]]
        ] = {}
        self._closed = False

    def unary_unary(self, path: str) -> grpc.UnaryUnaryMultiCallable[bytes, bytes]:
        """Return the method of this process's channel; making a method takes 20 us."""
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
        # No lock: a thread that does not exist after a fork may hold it. Two threads may each make
        # a connection: setdefault keeps the first, and connecting is lazy.
        door = self._route.open()
        fresh = Connection(door, self._route.channel(door))
        connection = self._connections.setdefault(os.getpid(), fresh)
        if connection is not fresh:
            fresh.channel.close()
        return connection.channel

    def reopen(self) -> bool:
        """Replace the channel if another daemon is there by now; return whether it is.

        Raises Nobody, CacheUnreachable.
        """
        known = self._connections.get(os.getpid())
        if known is None:
            return False
        door = self._route.another(known.door)
        if door is None:
            return False
        # Calls of other threads may still use the old channel: it ends with the last call.
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
