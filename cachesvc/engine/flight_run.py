"""Runs a flight: L2, otherwise the origin, then L1 and the waiters; `commit.py` does the rest.

Schedules that the fence decides:

    A: fill reads the origin | B: invalidate fences A, unlinks, commits | A: publish -> dropped
    A: reads L2's row | B: invalidates, its DELETE commits | A: promotes -> dropped
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from cachesvc.core.buffers import joined
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import EntryMeta, Row, oldest_ns
from cachesvc.core.errors import (
    CacheError,
    Draining,
    HostBusy,
    NoSuchObject,
    OriginUnavailable,
    PreconditionFailed,
    StaleFill,
)
from cachesvc.core.origin import OriginStamp
from cachesvc.core.tensors import Buffer
from cachesvc.core.tier import Tier
from cachesvc.core.verdict import Use, is_said_new_enough
from cachesvc.engine.absences import Absence
from cachesvc.engine.commit import Committer
from cachesvc.engine.fill import Filled, Filler
from cachesvc.engine.flight import Flight, Served
from cachesvc.engine.row_reads import RowReader
from cachesvc.engine.state import State, log
from cachesvc.tiers.rooms import Room


class FlightRunner:
    """Runs flights to their end. `start` is a plain function: the flight can be joined at once."""

    def __init__(self, state: State, filler: Filler) -> None:
        self._state = state
        self._filler = filler
        self._committer = Committer(state)
        self._rows = RowReader(state)

    def start(self, flight: Flight) -> None:
        state = self._state
        covered = state.tombstones.covers(flight.key, flight.owner or None)
        if covered and flight.key not in state.replacing:
            # L2 is a miss while an invalidation is under way.
            flight.from_origin(flight.owner)
        state.flights.add(flight)
        state.spawn(self._run(flight), name="flight")

    async def _run(self, flight: Flight) -> None:
        """Every end of a flight tells its waiters; no waiter is left to its deadline."""
        try:
            await self._fly(flight)
        except StaleFill:
            pass  # `Flight.fence` has told its waiters
        except CacheError as exc:
            flight.fail(exc)
        except asyncio.CancelledError:
            flight.fail(Draining("the daemon is shutting down; retry"))
            raise
        except Exception:  # noqa: BLE001 a defect must reach the waiters, not hang them
            log.exception("flight_failed", namespace=flight.key.namespace)
            flight.fail(CacheError("the fill failed in an unexpected way; see the daemon's log"))
        finally:
            if flight.fenced:
                self._state.metrics.fenced_fills.inc()
            self._state.flights.remove(flight)

    async def _fly(self, flight: Flight) -> None:
        if flight.key in self._state.replacing:
            # The Put will fence this flight, and the next one finds what was put.
            await self._state.wait_until_clear(flight.key, flight.owner)
            flight.check_fence()
        row = await self._rows.lookup(flight)
        if row is not None and await self._serve_row(flight, row):
            return
        # Where the caller named no owner, the row does.
        owner = flight.owner or (row.meta.owner if row is not None else "")
        if not flight.may_ask_origin:
            owner = ""
        if not owner:
            raise PreconditionFailed(
                "the entry is not cached, and the origin keeps it under its owner's prefix: name "
                "the owner (owner_id; --owner on the command line)",
                reason="OWNER_REQUIRED",
            )
        flight.from_origin(owner, self._state.clock.read().steady_ns)
        try:
            await self._fly_from_origin(flight, owner, row)
        except (OriginUnavailable, HostBusy):
            if row is None or not await self._serve_stale(flight):
                raise
        except NoSuchObject as exc:
            self._remember_absence(flight, exc)
            raise

    async def _fly_from_origin(self, flight: Flight, owner: str, row: Row | None) -> None:
        begun_ns = self._state.clock.read().wall_ns
        if row is not None and Use.REVALIDATE in self._use_of(flight, row, owner):
            found = await self._filler.refill_if_changed(
                flight.kind, flight.key, owner, row.meta.stamps, flight.check_fence
            )
            if isinstance(found, Filled):
                filled = found
            elif await self._renew(flight, row, found):
                return
            else:  # L2's file is gone or damaged
                filled = await self._fill(flight, owner)
        else:
            filled = await self._fill(flight, owner)
        self._state.absences.forget(flight.key, owner)
        meta = self._describe(flight, owner, filled, begun_ns)
        await self._land_filled(flight, meta, filled, row)

    async def _renew(self, flight: Flight, row: Row, stamps: tuple[OriginStamp, ...]) -> bool:
        """Serve L2's bytes, which are what the origin holds now; False if they are lost."""
        renewed = self._renewed(flight, row, stamps)
        if not is_said_new_enough(renewed.meta, self._state.ask(flight.need)):
            # Too old for the caller that started this flight; a caller without
            # `origin_after` may have joined and can use it.
            blob = await self._rows.read_to_heap(row)
            if blob is not None:
                flight.land_unpublished(renewed.meta, blob, Tier.ORIGIN, row.accesses)
            return blob is not None
        if not await self._promote(flight, renewed):
            return False
        await self._state.disk.confirm(renewed)
        return True

    def _renewed(self, flight: Flight, row: Row, stamps: tuple[OriginStamp, ...]) -> Row:
        """Return the row of the same bytes, confirmed now by `stamps`."""
        meta = replace(
            row.meta,
            stamps=stamps,
            origin_ns=oldest_ns(stamps),
            confirmed_ns=self._state.clock.read().steady_ns,
            base_ttl_s=flight.kind.ttl_s,
        )
        return Row(meta, row.accesses, row.last_access_ns)

    async def _fill(self, flight: Flight, owner: str) -> Filled:
        return await self._filler.fill(flight.kind, flight.key, owner, flight.check_fence)

    async def _land_filled(
        self, flight: Flight, meta: EntryMeta, filled: Filled, row: Row | None
    ) -> None:
        if not is_said_new_enough(meta, self._state.ask(flight.need)):
            # Half an upload, or an old one: it must not serve calls that come later.
            data = await self._state.in_worker(joined, filled.parts)
            blob = self._state.memory.on_heap(data, meta)
            flight.land_unpublished(meta, blob, Tier.ORIGIN)
            return
        await self._remove_older(flight, meta, row)
        await self._publish_bytes(flight, meta, filled.parts)
        await self._committer.commit(flight, meta, filled.parts)

    async def _remove_older(self, flight: Flight, meta: EntryMeta, row: Row | None) -> None:
        """Delete rows of other bytes; otherwise a crash before our commit brings them back.

        A: lands, its commit is slow | B: finds no row, reads newer bytes | A: queues its row
        B: deletes A's generation, behind A's row in the catalog's queue | B: publishes
        """
        flight.check_fence()
        older = [] if row is None else [row]
        filled = (*flight.stored_meanwhile, *self._state.flights.fence_landed(flight))
        older += [Row(stored, 0, 0) for stored in filled]
        for replaced in older:
            if replaced.meta.checksum != meta.checksum:
                await self._state.disk.remove(replaced)

    def _remember_absence(self, flight: Flight, said: NoSuchObject) -> None:
        if flight.fenced or not flight.owner or not flight.kind.absent_ttl_s:
            return
        now = self._state.clock.read()
        assert flight.origin_began_ns is not None
        since_ns = now.steady_ns - flight.origin_began_ns
        until_ns = now.steady_ns + int(flight.kind.absent_ttl_s * NS_PER_S)
        absence = Absence(now.wall_ns - since_ns, until_ns, said.object_keys)
        self._state.absences.add(flight.key, flight.owner, absence)

    # ---- L2

    def _use_of(self, flight: Flight, row: Row, owner: str = "") -> Use:
        return self._state.use_of(row, flight.kind, flight.need, owner)

    async def _serve_row(self, flight: Flight, row: Row) -> bool:
        """Serve L2's entry if the verdict is SERVE; False if it is not, or the file is lost."""
        flight.check_fence()
        return Use.SERVE in self._use_of(flight, row) and await self._promote(flight, row)

    async def _promote(self, flight: Flight, row: Row) -> bool:
        """Serve L2's entry; False if its file cannot be read."""
        room = self._room(flight, row.meta.size_bytes)
        try:
            started = time.monotonic()
            if not await self._rows.read_into(row, room):
                return False
            self._state.metrics.stage_seconds.observe(time.monotonic() - started, "l1_write")
            self._publish(flight, row.meta, room, Tier.DISK, row.accesses)
        finally:
            self._state.memory.discard(room)
        return True

    async def _serve_stale(self, flight: Flight) -> bool:
        """Serve an expired entry because the origin cannot be asked; False if its kind forbids it.

        The waiters get it and L1 does not: the next Get asks the origin again. An
        invalidated entry has no row, so it is never served:

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
        flight.land_unpublished(row.meta, blob, Tier.DISK, row.accesses, is_stale=True)
        state.metrics.stale_served.inc()
        return True

    # ---- the origin

    def _describe(self, flight: Flight, owner: str, filled: Filled, begun_ns: int) -> EntryMeta:
        now = self._state.clock.read()
        return EntryMeta(
            key=flight.key,
            owner=owner,
            generation=self._state.generations.next(now.wall_ns),
            size_bytes=filled.size_bytes,
            checksum=filled.checksum,
            stamps=filled.stamps,
            begun_ns=begun_ns,
            origin_ns=oldest_ns(filled.stamps),
            confirmed_ns=now.steady_ns,
            base_ttl_s=flight.kind.ttl_s,
            explicit_ttl_s=None,
            kind_version=flight.kind.version,
        )

    # ---- landing

    async def _publish_bytes(
        self, flight: Flight, meta: EntryMeta, parts: tuple[Buffer, ...]
    ) -> None:
        state = self._state
        room = self._room(flight, meta.size_bytes)
        try:
            started = time.monotonic()
            await state.write_to_memory(
                room, lambda: state.in_worker(state.memory.write, room, parts)
            )
            state.metrics.stage_seconds.observe(time.monotonic() - started, "l1_write")
            self._publish(flight, meta, room, Tier.ORIGIN, accesses=0)
        finally:
            state.memory.discard(room)

    def _room(self, flight: Flight, size_bytes: int) -> Room:
        memory = self._state.memory
        if not flight.to_memory:
            room = memory.heap_room(size_bytes)
        else:
            room = memory.reserve(flight.key, size_bytes)
        return room

    def _publish(
        self, flight: Flight, meta: EntryMeta, room: Room, tier: Tier, accesses: int
    ) -> None:
        """Make `room` L1's entry and answer. One function: no invalidation comes in between."""
        flight.check_fence()
        state = self._state
        state.flights.fence_landed(flight)
        accesses = state.uses.accesses_of(meta, accesses)
        if flight.to_memory:
            wall_ns, steady_ns = state.clock.read()
            if meta.as_of_ns > wall_ns:  # the row was read before its times were lowered
                state.owe_lowering()
            state.memory.publish(room, meta, accesses=accesses, steady_ns=steady_ns)
        state.memory.keep_in_reach(room.written, meta)
        flight.land(Served(meta, room.written, tier, meta.expires_ns(accesses), accesses))
