"""A warm-up that was begun: iterate over its progress, wait for its end, or drop it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Generator
from typing import Any, TypeVar

from cachesvc_client.answers import WarmProgress, WarmSummary, WarmTally

A = TypeVar("A")
# asyncio itself refers to its tasks weakly.
_running: set[asyncio.Task[Any]] = set()


def begin(work: Coroutine[Any, Any, A], name: str) -> asyncio.Task[A]:
    """Begin `work` in a task that its caller may drop, with its errors."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # otherwise asyncio logs the error of a task that was dropped


class AsyncWarmUp(AsyncIterator[WarmProgress]):
    """An iterator over the progress, first the start. The warm-up goes on without its caller.

    `await` waits for its end.
    """

    def __init__(self, steps: AsyncGenerator[WarmProgress, None]) -> None:
        """Begin at once. Needs a running loop."""
        self._steps = steps
        self._tally = WarmTally()
        self._start: asyncio.Task[WarmProgress] | None = begin(_next_of(steps), "cachesvc-warm")

    async def __anext__(self) -> WarmProgress:
        start, self._start = self._start, None
        progress = await (_next_of(self._steps) if start is None else start)
        self._tally.add(0, progress)
        return progress

    async def wait(self) -> WarmSummary:
        """Wait for the end; return the counts and the failed keys. Raises the daemon's errors."""
        async for _ in self:
            pass
        return self._tally.summary()

    def __await__(self) -> Generator[Any, None, WarmSummary]:
        return self.wait().__await__()

    async def aclose(self) -> None:
        """Stop listening; the daemon goes on. Repeating it is harmless."""
        start, self._start = self._start, None
        if start is not None:
            start.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await start
        await self._steps.aclose()

    def __repr__(self) -> str:
        return f"<AsyncWarmUp {self._tally.progress}>"


async def _next_of(steps: AsyncGenerator[WarmProgress, None]) -> WarmProgress:
    return await anext(steps)
