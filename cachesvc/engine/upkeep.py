"""What has to be done from time to time, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cachesvc.core.errors import NotDurable
from cachesvc.engine.state import State, log

MEMORY_STEP_S = 0.5
DISK_STEP_S = 5.0
NAMES_STEP_S = 1.0
NAMES = "directories"
# Not those up to now: a crash while the clock was ahead leaves files from later than now.
EVERY_GENERATION = 1 << 63
LAG_STEP_S = 0.1
# Longer than between two scrapes, so that each lateness is in one of them at least.
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
        """Say where a directory was deleted, moved or unmounted under the daemon."""
        lost = await self._state.disk.lost_names()
        if lost:
            names = ", ".join(str(path) for path in lost)
            self._state.problems.set(
                NAMES, f"deleted, moved or unmounted: {names}; put it back, or restart the daemon"
            )
        else:
            self._state.problems.clear(NAMES)

    async def remember_uses(self) -> None:
        """Hand the uses to the catalog. A defect there costs uses, not eviction or the drain."""
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
        except Exception:  # noqa: BLE001 eviction must outlive a defect in it, or the disk fills
            log.exception("upkeep_defect", step=step.__name__)


class LitterSweeper:
    """Removes the files of L2 that have no row: a crash left them, or a lost catalog.

    Each `run` walks all of L2. Nobody waits for it: a daemon is ready before it walks.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def run(self) -> None:
        """Remove what has no row and gets none. A namespace that fails holds up no other."""
        state = self._state
        foreign_names = 0
        for namespace in state.kinds.namespaces:
            try:
                report = await state.disk.sweep_litter(namespace, EVERY_GENERATION)
            except (OSError, NotDurable) as exc:
                log.warning("litter_sweep_failed", namespace=namespace, error=str(exc))
                continue
            foreign_names += report.foreign_names
            state.metrics.foreign_names.set(foreign_names)
            if report.removed_files:
                log.info("litter_removed", namespace=namespace, files=report.removed_files)


class LoopLag:
    """How late does the event loop come to what is due? Everything that calls wait for runs on it.

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
        """Take note that what was due at `due_s` ran at `now_s`."""
        if now_s >= self._window_ends_s:
            # After a gap of a whole window, what was before it is too old as well.
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
