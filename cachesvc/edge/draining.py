"""What does a stop wait for? It refuses new calls, and lets the calls under way end."""

from __future__ import annotations

import asyncio

from cachesvc.core.errors import Draining


class UnderWay:
    """Counts the calls that a stop waits for. Belongs to the event loop."""

    def __init__(self) -> None:
        self._running = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def check_not_draining(self) -> None:
        """Raise Draining if the daemon is stopping."""
        if self._draining:
            raise Draining("the daemon is shutting down; retry")

    def begin(self) -> None:
        """Count a call, until `end`."""
        self._running += 1
        self._idle.clear()

    def end(self) -> None:
        """Count one call less."""
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new calls and wait for the others. Returns whether all ended in time."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        except TimeoutError:
            return False
        return True
