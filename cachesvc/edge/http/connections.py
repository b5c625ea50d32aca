"""Limits the connections: at the limit, the oldest connection without a request is closed.

So callers that connect and send nothing, or send their headers slowly, keep nobody out. A TLS
handshake does not count: asyncio shows a connection after its handshake, and a connection that
cannot be closed here must not take a request's place. HANDSHAKE_S ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web


class Connections:
    """Makes the protocol of each new connection. Belongs to the event loop."""

    def __init__(self, server: web.Server, max_connections: int) -> None:
        self._server = server
        self._max_connections = max_connections
        self._busy: set[web.RequestHandler] = set()

    def accept(self) -> asyncio.Protocol:
        """Return a protocol that serves, or a protocol that hangs up if all others are at work."""
        # A closed connection stays listed until the loop handles its end.
        opened = [c for c in self._server.connections if c.transport is not None]
        if len(opened) >= self._max_connections:
            idle = next((c for c in opened if c not in self._busy), None)
            if idle is None:
                return _HangsUp()
            idle.force_close()
        return self._server()

    @contextmanager
    def at_work(self, request: web.Request) -> Iterator[None]:
        """Keep the connection of `request` while it is answered."""
        self._busy.add(request.protocol)
        try:
            yield
        finally:
            self._busy.discard(request.protocol)


class _HangsUp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
