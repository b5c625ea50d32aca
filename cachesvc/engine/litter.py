"""Removes the files of L2 that have no row: a crash left them, or a lost catalog.

Nobody waits for it: a daemon is ready before it walks, and answers meanwhile.
"""

from __future__ import annotations

from cachesvc.core.errors import NotDurable
from cachesvc.engine.state import State, log

# Not those up to now: a crash while the clock was ahead leaves files from later than now.
EVERY_GENERATION = 1 << 63


class LitterSweeper:
    """Walks all of L2 once for each `run`."""

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
