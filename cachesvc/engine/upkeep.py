"""Periodic work, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cachesvc.core.errors import NotDurable
from cachesvc.engine.state import State, log

MEMORY_STEP_S = 0.5
DISK_STEP_S = 5.0
NAMES_STEP_S = 1.0
NAMES = "directories"
# Not only generations up to now: a crash while the clock was ahead leaves later files.
EVERY_GENERATION = 1 << 63
LAG_STEP_S = 0.1
# Longer than the time between two scrapes, so that at least one scrape shows each lateness.
LAG_WINDOW_S = 30.0


class Upkeep:
    """Expires, evicts, and remembers uses. Tests call the steps; the daemon runs `loops`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self.loop_lag = LoopLag()

    async def memory_step(self) -> None:
        self._state.memory.step(self._state.read_time().steady_ns)

    async def disk_step(self) -> None:
        await self.remember_uses()
        now = self._state.read_time()
        if self._state.owes_lowering:
            await self._state.lower_times()
        await self._state.disk.step(now.steady_ns, now.wall_ns)

    async def names_step(self) -> None:
        """Report directories that were deleted, moved or unmounted under the daemon."""
        lost = await self._state.disk.lost_names()
        if lost:
            names = ", ".join(str(path) for path in lost)
            self._state.problems.set(
                NAMES, f"deleted, moved or unmounted: {names}; put it back, or restart the daemon"
            )
        else:
            self._state.problems.clear(NAMES)

    async def remember_uses(self) -> None:
        """Hand the uses to the catalog. A defect there loses uses and stops nothing else."""
        try:
            await self._state.uses.flush(self._state.disk.record_accesses)
        except Exception:  # noqa: BLE001 what cannot be written now is tried again with the next ones
            log.exception("uses_not_recorded")

    def loops(self) -> list[asyncio.Task[None]]:
        """Start the loops. They end by cancellation."""
        return [
            asyncio.create_task(_repeat(self.memory_step, MEMORY_STEP_S), name="memory-upkeep"),
            asyncio.create_task(_repeat(self.disk_step, DISK_STEP_S), name="disk-upkeep"),
            asyncio.create_task(_repeat(self.names_step, NAMES_STEP_S), name="names-upkeep"),
            asyncio.create_task(self.loop_lag.run(), name="loop-lag"),
        ]


async def _repeat(step: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await step()
        except (NotDurable, OSError) as exc:
            log.warning("upkeep_failed", step=step.__name__, error=str(exc))
        except Exception:  # noqa: BLE001 a defect must not end eviction, otherwise the disk fills
            log.exception("upkeep_defect", step=step.__name__)


class LitterSweeper:
    """Removes the files of L2 that have no row: a crash left them, or a lost catalog.

    Each `run` walks all of L2. The daemon is ready before the walk.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def run(self) -> None:
        """Remove files that have no row and get none. A namespace that fails stops no other."""
        state = self._state
        foreign_names = 0
        for namespace in state.kinds.namespaces:
            try:
                report = await state.disk.litter.sweep(namespace, EVERY_GENERATION)
            except (OSError, NotDurable) as exc:
                log.warning("litter_sweep_failed", namespace=namespace, error=str(exc))
                continue
            foreign_names += report.foreign_names
            state.metrics.foreign_names.set(foreign_names)
            if report.removed_files:
                log.info("litter_removed", namespace=namespace, files=report.removed_files)


class LoopLag:
    """Measures how late the event loop runs what is due: every call waits for the loop.

    Keeps the worst lateness of the last one to two windows. Times are the loop's own.
    """

    def __init__(self) -> None:
        self._window_ends_s = 0.0
        self._before_s = 0.0
        self._worst_s = 0.0

    @property
    def worst_s(self) -> float:
        return max(self._worst_s, self._before_s)

    def step(self, due_s: float, now_s: float) -> None:
        """Record that what was due at `due_s` ran at `now_s`."""
        if now_s >= self._window_ends_s:
            # After a gap of a whole window, the worst lateness before it is too old.
            is_next = now_s < self._window_ends_s + LAG_WINDOW_S
            self._before_s = self._worst_s if is_next else 0.0
            self._worst_s = 0.0
            self._window_ends_s = now_s + LAG_WINDOW_S
        self._worst_s = max(self._worst_s, now_s - due_s)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_STEP_S
            await asyncio.sleep(LAG_STEP_S)
            self.step(due_s, loop.time())
