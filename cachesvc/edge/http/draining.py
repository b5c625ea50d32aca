"""Which HTTP requests does a stop wait for, and which does it refuse?

Requests that only look (probes, metrics, the page) are answered to the end, and the stop does not
wait for them: a scraper that never stops would hold it up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from cachesvc.core.access import Action
from cachesvc.core.errors import Draining

LOOKS_ONLY = frozenset({Action.PROBE, Action.OBSERVE})


class Operations:
    """Counts the requests that a stop waits for. Belongs to the event loop."""

    def __init__(self) -> None:
        self._running = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Count a request for the length of a `with`. Raises Draining if the daemon is stopping."""
        if self._draining:
            raise Draining("the daemon is shutting down; retry")
        self._running += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new requests and wait for the others. Returns whether all ended in time."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), deadline_s)
        except TimeoutError:
            return False
        return True
