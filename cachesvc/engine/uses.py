"""Remembers which entries were used, until the catalog has it."""

from __future__ import annotations

from cachesvc.core.entry import Row
from cachesvc.core.keys import EntryKey
from cachesvc.engine.flights import Served
from cachesvc.engine.ports import Cached
from cachesvc.engine.state import State


class UseLog:
    """Counts uses in L1 at once, and hands them to L2 in batches.

    Bounded by the keys that L1 held since the last batch.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._used: dict[EntryKey, Cached] = {}

    def record(self, cached: Cached, steady_ns: int) -> None:
        """Count a hit of an L1 entry."""
        self._state.memory.record_use(cached, steady_ns)
        self._used[cached.meta.key] = cached

    def record_served(self, served: Served, steady_ns: int) -> None:
        """Count an answer that came from a flight, if L1 still holds that generation."""
        cached = self._state.memory.lookup(served.meta.key, steady_ns)
        if cached is not None and cached.meta.generation == served.meta.generation:
            self.record(cached, steady_ns)

    async def flush(self) -> None:
        """Hand everything so far to the catalog."""
        used, self._used = self._used, {}
        rows = [Row(c.meta, c.accesses, c.last_access_ns) for c in used.values()]
        await self._state.disk.record_accesses(rows)
