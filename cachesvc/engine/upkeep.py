"""What has to be done from time to time, one step at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cachesvc.core.errors import NotDurable
from cachesvc.engine.loop_lag import LoopLag
from cachesvc.engine.state import State, log

MEMORY_STEP_S = 0.5
DISK_STEP_S = 5.0
NAMES_STEP_S = 1.0
NAMES = "directories"


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
