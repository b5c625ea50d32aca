"""Who hears that a serving daemon is no longer ready, or ready again?

The log, at warning, because both need a person's eye; and gRPC's health checks. HTTP
reads the problems itself when it is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from cachesvc.core.problems import Problems

log = structlog.get_logger()


class Readiness:
    """Tells of each change between the start's end and the drain. `run` ends by cancellation."""

    def __init__(self, problems: Problems, show: Callable[[bool], Awaitable[None]]) -> None:
        self._problems = problems
        self._show = show
        self._changed = asyncio.Event()
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Tell of changes. A problem that came and went within one turn of the loop is not told."""
        end = self._problems.watch(self._changed.set)
        self._changed.set()  # what came before this task's first turn
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._say(self._problems.current())
        finally:
            end()

    async def _say(self, problems: dict[str, str]) -> None:
        if problems == self._said:
            return
        self._said = problems
        if problems:
            log.warning("not_ready", problems=problems)
        else:
            log.warning("ready_again")
        await self._show(not problems)
