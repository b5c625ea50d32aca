"""After a restart, promotes from L2 what was used last, while no call waits for a flight."""

from __future__ import annotations

import asyncio

from cachesvc.core.entry import Row
from cachesvc.core.errors import CacheError, NotDurable
from cachesvc.core.verdict import Use
from cachesvc.engine.get import Getter, ReadRequest
from cachesvc.engine.state import State, log

# More than L1 holds of entries of the usual size.
MAX_ROWS = 1000
PAUSE_S = 0.02


class Rewarmer:
    """Fills the empty L1 up to its limits, one entry at a time, evicting nothing."""

    def __init__(self, state: State, getter: Getter) -> None:
        self._state = state
        self._getter = getter

    async def run(self) -> int:
        """Promote entries, and return how many."""
        try:
            rows = await self._state.disk.hottest(MAX_ROWS)
        except NotDurable as exc:
            log.warning("rewarming_failed", error=exc.message)
            return 0
        promoted = 0
        # Promote the hottest last; otherwise L1 would evict it first.
        for row in reversed(self._fitting(rows)):
            await self._wait_for_calm()
            promoted += await self._promote(row)
        if promoted:
            log.info("rewarmed", entries=promoted)
        return promoted

    def _fitting(self, rows: list[Row]) -> list[Row]:
        """Return those of `rows`, hottest first, that L1 has places for."""
        kinds, left_bytes = self._state.kinds, self._state.memory.free_bytes
        places = {name: kinds.of(name).max_entries for name in kinds.namespaces}
        fitting = []
        for row in rows:
            namespace = row.meta.key.namespace
            if places.get(namespace, 0) and row.meta.size_bytes <= left_bytes:
                places[namespace] -= 1
                left_bytes -= row.meta.size_bytes
                fitting.append(row)
        return fitting

    async def _wait_for_calm(self) -> None:
        """Give way to hits on the loop, and to live misses on the disk."""
        await asyncio.sleep(PAUSE_S)
        while len(self._state.flights):  # noqa: ASYNC110 nobody is in a hurry here
            await asyncio.sleep(PAUSE_S)

    async def _promote(self, row: Row) -> bool:
        state, meta = self._state, row.meta
        steady_ns = state.clock.read().steady_ns
        if (
            meta.key.namespace not in state.kinds.namespaces
            or state.memory.lookup(meta.key, steady_ns) is not None
            or not state.memory.has_room(meta.key, meta.size_bytes)
        ):
            return False
        kind = state.kinds.of(meta.key.namespace)
        if Use.SERVE not in state.use_of(row, kind):
            return False
        request = ReadRequest(meta.key, kind, owner="", may_ask_origin=False)
        try:
            await self._getter.fetch(request)
        except CacheError:
            return False  # it was removed meanwhile, or is damaged
        return True
