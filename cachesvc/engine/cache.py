"""The engine as its callers see it: Get, Put, Invalidate, Warm, Inspect.

Each call has a module; this one connects them and ends them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from cachesvc.core.entry import Row
from cachesvc.core.errors import NotDurable
from cachesvc.core.events import RecentEvents
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kinds
from cachesvc.core.origin import Origin
from cachesvc.core.scopes import Scope
from cachesvc.core.verdict import Use
from cachesvc.engine.fill import Filler
from cachesvc.engine.flight import Served
from cachesvc.engine.flight_run import FlightRunner
from cachesvc.engine.get import Getter, ReadRequest
from cachesvc.engine.invalidate import Invalidated, Invalidator
from cachesvc.engine.ports import Codec
from cachesvc.engine.put import PutHeader, PutTable, Putter, Upload
from cachesvc.engine.rewarm import Rewarmer
from cachesvc.engine.state import (
    CATALOG_WAS_LOST,
    CLOCK_WAS_BEHIND,
    Limits,
    ReadsTime,
    State,
    log,
)
from cachesvc.engine.upkeep import LitterSweeper, Upkeep
from cachesvc.engine.warm import Progress, Warmer
from cachesvc.tiers.memory import MemoryEntry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What each tier holds of a key."""

    memory: MemoryEntry | None
    disk: Row | None
    is_filling: bool


@dataclass(frozen=True, slots=True)
class Levels:
    """How much the engine has to do at one moment.

    `unfinished_invalidations` counts invalidations that are not durable yet, and L1 files that
    could not be unlinked. `pending_bytes` wait to be written to L2. `is_origin_left_alone` is
    whether the origin's circuit is open. `loop_lag_s` is the loop's worst lateness of
    the last 30 to 60 s.
    """

    flights: int
    puts: int
    tombstones: int
    unfinished_invalidations: int
    absences: int
    pending_bytes: int
    is_origin_left_alone: bool
    loop_lag_s: float


class Cache:
    """One host's cache. Every method belongs to the event loop.

    The calls raise the errors of core/errors.py; each docstring names those that are not obvious.
    Keys, owners and kinds in their arguments have been checked. Times end in `_ns`; wall time
    counts from 1970.
    """

    def __init__(self, state: State, origin: Origin, codec: Codec) -> None:
        self._state = state
        now = state.clock.read()
        state.watch.begin(now, state.disk.last_write_ns)
        # The last write is dated before a generation stored earlier: the clock ran behind, so
        # the recorded changes are dated too early.
        if 0 < state.disk.last_write_ns < state.disk.last_generation <= now.wall_ns:
            state.know_changes_from(now.wall_ns, CLOCK_WAS_BEHIND)
        filler = Filler(state, origin, codec)
        puts = PutTable()
        self._getter = Getter(state, FlightRunner(state, filler))
        self._invalidator = Invalidator(state, puts)
        self._putter = Putter(state, filler, codec, puts)
        self._warmer = Warmer(state, self._getter)
        self._rewarmer = Rewarmer(state, self._getter)
        self._filler = filler
        self._puts = puts
        self._sweeper = LitterSweeper(state)
        # Tests call its steps.
        self.upkeep = Upkeep(state)
        # Background work, until `drain`.
        self._loops: list[asyncio.Task[Any]] = []
        self._is_running = False

    # ---- what its callers judge requests with

    @property
    def kinds(self) -> Kinds:
        """The kinds that it keeps."""
        return self._state.kinds

    @property
    def clock(self) -> ReadsTime:
        """The clock of all steady times in its answers."""
        return self._state.clock

    @property
    def limits(self) -> Limits:
        """What it takes on at once."""
        return self._state.limits

    # ---- the calls

    def get(self, request: ReadRequest) -> Coroutine[Any, Any, Served]:
        """Return the entry, from L1 without an await, otherwise from the key's flight.

        If cancelled, the flight goes on for its other waiters.

        Raises:
            PreconditionFailed: the kind has another version than `request.kind_version`.
            NoSuchObject: the origin has no such entry, or only one older than `origin_after_ns`.
            Aborted: invalidations fenced its flights again and again.
            Overloaded, OriginError: see `core/errors.py`.
        """
        # Not `async`: that would cost each hit a coroutine more.
        return self._getter.get(request)

    def count_local_hits(self, key: EntryKey, generation: int, count: int) -> int:
        """Count hits that a worker served itself from L1's file.

        Returns how many were counted as uses of the entry: all, or 0 if L1 holds another
        generation by now, or none.
        """
        # Count also the hits of entries that have left L1 since: they were served.
        self._state.metrics.requests.inc("local", count)
        return self._getter.count_local_hits(key, generation, count)

    def sending(self, served: Served) -> AbstractContextManager[None]:
        """Count the entry's bytes while a stream sends them.

        Raises:
            Overloaded: on entering, if streams hold all of L1.
        """
        return self._state.memory.sending(served.blob)

    def receive_put(self, header: PutHeader) -> AbstractAsyncContextManager[Upload]:
        """Begin a Put, and take its bytes for the length of an `async with`.

        An invalidation from now on fences the Put. Leaving the `async with` before `store_put`
        gives it up.

        Raises:
            InvalidRequest: on entering, for `persist` without an owner.
            Overloaded: on entering, if too many Puts are under way.
        """
        return self._putter.receive(header)

    async def check_put(self, upload: Upload) -> bool:
        """Judge what was received as `store_put` would, and store nothing.

        Returns whether L2 would take it. Raises InvalidRequest, Aborted as `store_put`.
        """
        return await self._putter.check(upload)

    async def store_put(self, upload: Upload) -> Served:
        """Check and store what was received. When this returns, the entry survives a crash.

        If cancelled, storing goes on.

        Raises:
            InvalidRequest: the blob is not the kind's.
            Aborted: reason PUT_OUTDATED or PUT_FENCED; `persist` may have written objects.
            Overloaded: neither tier has room; the older entry is gone.
            OriginError: `persist` failed, and nothing was stored.
            NotDurable: the catalog cannot be written, or L1's older file cannot be removed.
        """
        return await self._putter.store(upload)

    async def invalidate(
        self, scope: Scope, changed_at_ns: int | None = None, *, erase: bool = False
    ) -> Invalidated:
        """Remove what `scope` covers, and remember when its source changed.

        When this returns, no Get is served the bytes, also after a crash. `changed_at_ns` (wall)
        None = now; later than now = now. `erase` also overwrites the bytes. If cancelled, the
        invalidation goes on.

        Raises:
            NotDurable: nothing of `scope` is served any more, but a crash could bring it back.
                The daemon retries, except for reason ERASE_FAILED: then the caller has to.
        """
        return await self._invalidator.invalidate(scope, changed_at_ns, erase=erase)

    def warm(self, requests: list[ReadRequest]) -> AsyncIterator[Progress]:
        """Start fetching the entries, and return the progress to watch.

        The fetching goes on if the progress is not watched.

        Raises:
            InvalidRequest: more keys than `limits.max_warm_keys`.
            Overloaded: too many warm-ups are running.
        """
        return self._warmer.warm(requests)

    async def inspect(self, key: EntryKey) -> Inspection:
        """Return what each tier could serve of `key`, without counting a use.

        While the catalog cannot be read, L2 counts as empty.
        """
        state = self._state
        row = None
        with contextlib.suppress(NotDurable):
            row = await state.disk.lookup(key)
        if row is not None and Use.SERVE not in state.use_of(row, state.kinds.of(key.namespace)):
            row = None
        cached = state.memory.lookup(key, state.clock.read().steady_ns)
        return Inspection(cached, row, state.flights.is_filling(key))

    # ---- what it is doing

    def levels(self) -> Levels:
        """Return how much there is to do at this moment."""
        state = self._state
        return Levels(
            flights=len(state.flights),
            puts=len(self._puts),
            tombstones=len(state.tombstones),
            unfinished_invalidations=self._invalidator.unfinished + state.memory.owed_files,
            absences=len(state.absences),
            pending_bytes=state.pending_commit_bytes,
            is_origin_left_alone=self._filler.breaker.is_open,
            loop_lag_s=self.upkeep.loop_lag.worst_s,
        )

    @property
    def events(self) -> RecentEvents:
        """The last evictions and invalidations."""
        return self._state.events

    # ---- its life

    def start(self, *, rewarm: bool) -> None:
        """Start the upkeep; with `rewarm`, also promote what was used last to L1."""
        self._is_running = True
        self._loops = [*self.upkeep.loops()]
        if rewarm:
            self._loops.append(asyncio.create_task(self._rewarmer.run(), name="rewarming"))
        self._begin_sweep()

    def catalog_lost(self) -> None:
        """Go on with an empty catalog: L2's files are litter, recorded changes are forgotten."""
        self._state.know_changes_from(self._state.clock.read().wall_ns, CATALOG_WAS_LOST)
        if self._is_running:  # otherwise `start` begins the sweep
            self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._loops.append(asyncio.create_task(self._sweeper.run(), name="litter-sweep"))

    async def outliving_its_caller(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run `work` in a task of that name, which `drain` waits for, and return its result.

        If cancelled, `work` goes on.
        """
        return await self._state.outliving_its_caller(work, name)

    async def drain(self, deadline_s: float) -> None:
        """End the upkeep, let all work under way finish, and record a clean end.

        What outlasts `deadline_s` is cancelled. Call it when no more calls come.
        """
        self._is_running = False
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        tasks = self._state.tasks
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline_s)
            for task in late:
                log.warning("task_cancelled_at_shutdown", task=task.get_name())
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.upkeep.remember_uses()
        if await self._catalog_has_every_change():
            await self._state.disk.record_clean_end()

    async def _catalog_has_every_change(self) -> bool:
        """Record what is still owed. The next daemon believes a clean end."""
        if self._state.owes_lowering:
            with contextlib.suppress(NotDurable):
                await self._state.lower_times()
        # A cancelled invalidation leaves its tombstone: its change may be in no catalog.
        return not (self._state.tombstones or self._state.owes_lowering)
