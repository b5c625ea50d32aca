"""Remembers how entries were used, until the catalog has been told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.keys import EntryKey


class UseLog:
    """The uses since the last batch, by key. Bounded by the keys used since then.

    Holds values, not L1's entries: those would keep evicted bytes in memory. A count is of
    a generation's whole life, so a batch that is written twice does no harm.
    """

    def __init__(self) -> None:
        self._used: dict[EntryKey, Row] = {}

    def note(self, meta: EntryMeta, accesses: int, steady_ns: int) -> None:
        """Remember that this generation has been used `accesses` times by now."""
        self._used[meta.key] = Row(meta, accesses, steady_ns)

    def accesses_of(self, meta: EntryMeta, known: int) -> int:
        """Return the accesses of a generation: `known`, or the higher count that waits here."""
        used = self._used.get(meta.key)
        if used is None or used.meta.generation != meta.generation:
            return known
        return max(known, used.accesses)

    async def flush(self, write: Callable[[list[Row]], Awaitable[None]]) -> None:
        """Hand all uses so far to `write`, and keep them until `write` returns.

        L2 drops the uses that a full disk refuses: kept, they would grow with every key that is
        used meanwhile. An entry of L1 hands over its whole count again with its next use.
        """
        rows = list(self._used.values())
        await write(rows)
        for row in rows:
            if self._used.get(row.meta.key) is row:
                del self._used[row.meta.key]
