"""The channels of an asyncio client: one for each event loop.

A channel belongs to the event loop that first used it. gRPC for asyncio does not survive a fork;
see `_fork.py`.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import grpc.aio

from cachesvc_client._door import Door
from cachesvc_client._fork import (
    note_asyncio_use,
    refuse_if_forked_after_asyncio,
    refuse_if_patched,
    running_loop,
)
from cachesvc_client._route import Route


class Connection(NamedTuple):
    """A channel and its door, which stays open as long as the channel lives."""

    door: Door
    channel: grpc.aio.Channel


class Channels:
    """The channel of each event loop, and its methods."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._connections: dict[asyncio.AbstractEventLoop, Connection] = {}
        self._closed = False

    def unary_unary(self, path: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        return self.current().unary_unary(path)

    def unary_stream(self, path: str) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
        return self.current().unary_stream(path)

    def stream_unary(self, path: str) -> grpc.aio.StreamUnaryMultiCallable[bytes, bytes]:
        return self.current().stream_unary(path)

    def current(self) -> grpc.aio.Channel:
        """Return the running loop's channel. Raises Nobody, CacheUnreachable, RuntimeError."""
        if self._closed:
            raise RuntimeError("this client is closed")
        refuse_if_patched()
        refuse_if_forked_after_asyncio()
        loop = running_loop()
        note_asyncio_use()
        connection = self._connections.get(loop)
        if connection is None:
            self._forget_closed_loops()
            door = self._route.open()
            connection = Connection(door, self._route.aio_channel(door))
            self._connections[loop] = connection
        return connection.channel

    def reopen(self) -> bool:
        """Replace the channel if another daemon is there by now; return whether it is.

        Raises Nobody, CacheUnreachable.
        """
        loop = running_loop()
        known = self._connections.get(loop)
        if known is None:
            return False
        door = self._route.another(known.door)
        if door is None:
            return False
        # Other tasks' calls may still use the old channel: it ends with the last call.
        self._connections[loop] = Connection(door, self._route.aio_channel(door))
        return True

    async def close(self) -> None:
        """Close the running loop's channel. Harmless when repeated."""
        self._closed = True
        self._forget_closed_loops()
        connection = self._connections.pop(running_loop(), None)
        if connection is not None:
            await connection.channel.close()
            connection.door.close()

    def _forget_closed_loops(self) -> None:
        """Forget the connections of closed loops, which cannot be used or closed any more.

        A channel refers to its loop, so weak keys would never disappear.
        """
        for loop in tuple(self._connections):
            if loop.is_closed():
                self._connections.pop(loop, None)
