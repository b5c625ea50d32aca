"""Lowers the times in L2 that are later than now: they are from when the clock was ahead.

The age of such an entry is unknown, and such a change would refuse every source read from now on.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import replace

from cachesvc.core.clock import Now
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Change, Scope, ScopeKind
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.unrecorded import UnrecordedChanges

# Rows that are looked at in one step.
BATCH = 200


class LaterTimes:
    """The times of one L2. Belongs to the event loop."""

    def __init__(self, catalog: Catalog, readers: Executor, unrecorded: UnrecordedChanges) -> None:
        self._catalog = catalog
        self._readers = readers
        self._unrecorded = unrecorded
        self._has_later_rows = False

    async def lower_changes(self, now: Now, changes_known_from_ns: int) -> None:
        """Lower the times of recorded changes later than now to now.

        Unless `changes_known_from_ns` is 0, record a change of everything at that time, which
        deletes nothing. Raises NotDurable.
        """
        self._unrecorded.lower(now.wall_ns)
        if await self._catalog.lower_changes(now.wall_ns):
            # Each Put has recorded its `as_of` as a change: only such a change shows later rows.
            self._has_later_rows = True
        if changes_known_from_ns:
            everything = Scope(ScopeKind.EVERYTHING)
            await self._catalog.record_change(Change(everything, changes_known_from_ns))

    async def lower_all(self, now: Now, changes_known_from_ns: int) -> None:
        """As `lower_changes`, and lower rows put or used later than now. May read all rows."""
        await self.lower_changes(now, changes_known_from_ns)
        last_used = await asyncio.get_running_loop().run_in_executor(
            self._readers, self._catalog.hottest, 1
        )
        last_use_ns = max((row.last_access_ns for row in last_used), default=0)
        if self._has_later_rows or last_use_ns > now.steady_ns:
            await self._lower_rows(now, max(0, last_use_ns - now.steady_ns))
            self._has_later_rows = False

    async def _lower_rows(self, now: Now, use_lead_ns: int) -> None:
        """Lower Puts' times; move all uses back by `use_lead_ns`, so that their order stays.

        Otherwise entries used from now on would be evicted before entries used earlier.
        """
        loop = asyncio.get_running_loop()
        after: EntryKey | None = EntryKey("", "")
        while after is not None:
            later = await loop.run_in_executor(
                self._readers, self._catalog.later_rows, now, after, BATCH
            )
            for row in later:
                meta, last_access_ns = row.meta.lowered(now.wall_ns), row.last_access_ns
                if meta is not row.meta:
                    await self._catalog.confirm(replace(row, meta=meta))
                if last_access_ns > now.steady_ns:
                    moved = replace(row, meta=meta, last_access_ns=last_access_ns - use_lead_ns)
                    await self._catalog.record_accesses([moved])
            after = later[-1].meta.key if later else None
