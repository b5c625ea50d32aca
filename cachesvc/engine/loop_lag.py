"""How late does the event loop come to what is due? Everything that calls wait for runs on it."""

from __future__ import annotations

import asyncio

STEP_S = 0.1
# Longer than between two scrapes, so that each lateness is in one of them at least.
WINDOW_S = 30.0


class LoopLag:
    """Keeps the worst lateness of the last one to two windows. Times are the loop's own."""

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
            is_next = now_s < self._window_ends_s + WINDOW_S
            self._before_s = self._worst_s if is_next else 0.0
            self._worst_s = 0.0
            self._window_ends_s = now_s + WINDOW_S
        self._worst_s = max(self._worst_s, now_s - due_s)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + STEP_S
            await asyncio.sleep(STEP_S)
            self.step(due_s, loop.time())
