"""What is an expired row still good for? A renewal, or an answer while the origin is away."""

from __future__ import annotations

from dataclasses import replace

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import Row, oldest_ns
from cachesvc.core.origin import OriginStamp
from cachesvc.engine.flights import Flight
from cachesvc.engine.row_reads import RowReader
from cachesvc.engine.state import State


class ExpiredRows:
    """Decides what becomes of them. The flight that renews one is `flying.py`'s."""

    def __init__(self, state: State, rows: RowReader) -> None:
        self._state = state
        self._rows = rows

    def can_revalidate(self, flight: Flight, owner: str, row: Row) -> bool:
        """Return whether conditional requests can tell that `row` is what the origin holds."""
        meta, kind = row.meta, flight.kind
        expected = [kind.object_key(field, flight.key, owner) for field in kind.fields]
        return (
            # The fence knows the flight by this owner, and would miss a removal by the row's.
            meta.owner == owner
            and [stamp.object_key for stamp in meta.stamps] == expected
            and meta.kind_version == kind.version
            and not meta.as_of_ns
            and not self._state.tombstones.covers(flight.key, meta.owner)
        )

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
        flight.check_fence()
        # The bytes come from L2 again: from here on a removal by any owner fences it.
        flight.source_owner = None
        row = await self._rows.lookup(flight)
        if row is None:
            return False
        state, meta = self._state, row.meta
        stale_ns = int(flight.kind.stale_if_error_s * NS_PER_S)
        if (
            meta.kind_version != flight.kind.version
            or not meta.is_servable(state.clock.read().steady_ns, row.accesses, late_ns=stale_ns)
            or not state.is_new_enough(meta, flight.need)
            or state.tombstones.covers(flight.key, meta.owner)
        ):
            return False
        blob = await self._rows.read_to_heap(row)
        if blob is None:
            return False
        flight.land_unpublished(meta, blob, "disk", row.accesses, is_stale=True)
        state.metrics.stale_served.inc()
        return True
