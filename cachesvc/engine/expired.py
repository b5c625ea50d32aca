"""What is an expired row still good for? A renewal, or an answer while the origin is away."""

from __future__ import annotations

from dataclasses import replace

from cachesvc.core.entry import Row, oldest_ns
from cachesvc.core.origin import OriginStamp
from cachesvc.core.verdict import Use
from cachesvc.engine.flights import Flight
from cachesvc.engine.row_reads import RowReader
from cachesvc.engine.state import State


class ExpiredRows:
    """Decides what becomes of them. The flight that renews one is `flying.py`'s."""

    def __init__(self, state: State, rows: RowReader) -> None:
        self._state = state
        self._rows = rows

    def renewed(self, flight: Flight, row: Row, stamps: tuple[OriginStamp, ...]) -> Row:
        """Return the row of the same bytes, confirmed now by `stamps`."""
        meta = replace(
            row.meta,
            stamps=stamps,
            origin_ns=oldest_ns(stamps),
            confirmed_ns=self._state.clock.read().steady_ns,
            base_ttl_s=flight.kind.ttl_s,
        )
        return Row(meta, row.accesses, row.last_access_ns)

    async def serve_stale(self, flight: Flight) -> bool:
        """Serve an expired entry because the origin is away; False if its kind forbids that.

        It is handed to those who wait and kept nowhere: the next Get asks the origin again.
        An invalidated entry has no row, so it cannot come back this way:

            A: reads bob's row for alice | B: invalidates bob's, answers | A: origin fails -> no row
        """
        flight.back_to_disk()
        row = await self._rows.lookup(flight)
        if row is None:
            return False
        state = self._state
        if Use.STALE_IF_ERROR not in state.use_of(row, flight.kind, flight.need):
            return False
        blob = await self._rows.read_to_heap(row)
        if blob is None:
            return False
        flight.land_unpublished(row.meta, blob, "disk", row.accesses, is_stale=True)
        state.metrics.stale_served.inc()
        return True
