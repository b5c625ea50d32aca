"""The engine as its callers see it: Get, Put, Invalidate, Warm, Inspect.

Each call has a module; this one connects them and ends them in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from cachesvc.core.entry import Row
from cachesvc.core.errors import NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.origin import Origin
from cachesvc.core.verdict import Use
from cachesvc.engine.fill import Filler
from cachesvc.engine.flight_run import FlightRunner
from cachesvc.engine.get import Getter
from cachesvc.engine.invalidate import Invalidator
from cachesvc.engine.ports import Codec
from cachesvc.engine.put import PutTable, Putter
from cachesvc.engine.rewarm import Rewarmer
from cachesvc.engine.state import State, log
from cachesvc.engine.upkeep import LitterSweeper, Upkeep
from cachesvc.engine.warm import Warmer
from cachesvc.tiers.memory import MemoryEntry


@dataclass(frozen=True, slots=True)
class Inspection:
    """What each tier holds of a key."""

    memory: MemoryEntry | None
    disk: Row | None
    is_filling: bool


class Cache:
    """One host's cache. Every method belongs to the event loop."""

    def __init__(self, state: State, origin: Origin, codec: Codec) -> None:
        self.state = state
        now = state.clock.read()
        state.watch.begin(now, state.disk.last_write_ns)
        # The last write is dated before a generation stored earlier: the clock ran behind, so
        # the recorded changes are dated too early.
        if 0 < state.disk.last_write_ns < state.disk.last_generation <= now.wall_ns:
            state.know_changes_from(now.wall_ns)
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
        self.upkeep = Upkeep(state)
        # Background work, until `drain`.
        self._loops: list[asyncio.Task[Any]] = []
        self._is_running = False
        self.get = self._getter.get
        self.record_local_hits = self._getter.count_local_hits
        self.receive_put = self._putter.receive
        self.store_put = self._putter.store
        self.invalidate = self._invalidator.invalidate
        self.warm = self._warmer.warm

    @property
    def unfinished_invalidations(self) -> int:
        """Invalidations that are not durable yet, plus L1 files that could not be unlinked."""
        return self._invalidator.unfinished + self.state.memory.owed_files

    @property
    def puts_under_way(self) -> int:
        return len(self._puts)

    async def inspect(self, key: EntryKey) -> Inspection:
        """Return what each tier holds of `key`, without counting a use."""
        state = self.state
        row = None
        with contextlib.suppress(NotDurable):
            row = await state.disk.lookup(key)
        if row is not None and Use.SERVE not in state.use_of(row, state.kinds.of(key.namespace)):
            row = None
        cached = state.memory.lookup(key, state.clock.read().steady_ns)
        return Inspection(cached, row, state.flights.is_filling(key))

    def start(self, *, rewarm: bool) -> None:
        """Start the upkeep; with `rewarm`, also promote what was used last to L1."""
        self._is_running = True
        self._loops = [*self.upkeep.loops()]
        if rewarm:
            self._loops.append(asyncio.create_task(self._rewarmer.run(), name="rewarming"))
        self._begin_sweep()

    def catalog_lost(self) -> None:
        """Go on with an empty catalog: L2's files are litter, recorded changes are forgotten."""
        self.state.know_changes_from(self.state.clock.read().wall_ns)
        if self._is_running:  # otherwise `start` begins the sweep
            self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._loops.append(asyncio.create_task(self._sweeper.run(), name="litter-sweep"))

    @property
    def is_origin_left_alone(self) -> bool:
        """Return whether the origin's circuit is open."""
        return self._filler.breaker.is_open

    async def drain(self, deadline_s: float) -> None:
        """Let flights, commits and invalidations finish; cancel what outlasts the deadline."""
        self._is_running = False
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        tasks = self.state.tasks
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline_s)
            for task in late:
                log.warning("task_cancelled_at_shutdown", task=task.get_name())
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self.upkeep.remember_uses()
        # A cancelled invalidation leaves its tombstone: its change may be in no catalog.
        if not self.state.tombstones:
            await self.state.disk.record_clean_end()
