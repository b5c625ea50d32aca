"""Removes the files of L2 that have no row: a crash left them, or a lost catalog.

Nobody waits for it: a daemon is ready before it walks, and answers meanwhile.
"""

from __future__ import annotations

from cachesvc.core.errors import NotDurable
from cachesvc.engine.state import State, log


class LitterSweeper:
    """Walks all of L2 once for each `run`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def run(self) -> None:
        """Remove what is older than this moment. A namespace that fails holds up no other."""
        state = self._state
        before = state.generations.next(state.clock.read().wall_ns)
        foreign_names = 0
        for namespace in state.kinds.namespaces:
            try:
                report = await state.disk.sweep_litter(namespace, before)
            except (OSError, NotDurable) as exc:
                log.warning("litter_sweep_failed", namespace=namespace, error=str(exc))
                continue
            foreign_names += report.foreign_names
            state.metrics.foreign_names.set(foreign_names)
            if report.removed_files:
                log.info("litter_removed", namespace=namespace, files=report.removed_files)
