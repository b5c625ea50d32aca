"""Reports that a serving daemon is no longer ready, or ready again.

The reports go to the log, at warning, because a person should see both, and to gRPC's health
checks. HTTP reads the problems itself for each request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from cachesvc.core.problems import Problems

log = structlog.get_logger()


class Readiness:
    """Reports each change between the start's end and the drain. `run` ends by cancellation."""

    def __init__(self, problems: Problems, show: Callable[[bool], Awaitable[None]]) -> None:
        self._problems = problems
        self._show = show
        self._changed = asyncio.Event()
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Report changes, but no problem that came and went within one turn of the loop."""
        end = self._problems.watch(self._changed.set)
        self._changed.set()  # report problems from before the first turn
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
