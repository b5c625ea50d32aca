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
        # Values, not entries: those would keep evicted bytes in memory until the next batch.
        self._used: dict[EntryKey, Row] = {}

    def record(self, cached: Cached, steady_ns: int, count: int = 1) -> None:
        """Count hits of an L1 entry."""
        self._state.memory.record_use(cached, steady_ns, count)
        self._used[cached.meta.key] = Row(cached.meta, cached.accesses, cached.last_access_ns)

    def record_served(self, served: Served, steady_ns: int) -> None:
        """Count an answer that came from a flight, if L1 still holds that generation."""
        cached = self._state.memory.lookup(served.meta.key, steady_ns)
        if cached is not None and cached.meta.generation == served.meta.generation:
            self.record(cached, steady_ns)

    def record_local(self, key: EntryKey, generation: int, count: int) -> int:
        """Count hits that a worker served itself; 0 if L1 holds other bytes by now."""
        steady_ns = self._state.clock.read().steady_ns
        cached = self._state.memory.lookup(key, steady_ns)
        if cached is None or cached.meta.generation != generation:
            return 0
        self.record(cached, steady_ns, count)
        return count

    async def flush(self) -> None:
        """Hand everything so far to the catalog."""
        used, self._used = self._used, {}
        await self._state.disk.record_accesses(list(used.values()))
