"""How a call waits: in its task, within its deadline and `wait_s`."""

from __future__ import annotations

import asyncio
from concurrent import futures
from typing import TypeVar

A = TypeVar("A")

TimedOut = asyncio.TimeoutError


async def pause(pause_s: float) -> None:
    await asyncio.sleep(pause_s)


async def result_of(future: futures.Future[A], within_s: float) -> A:
    """Return the future's result. Raises TimedOut."""
    return await asyncio.wait_for(asyncio.wrap_future(future), within_s)
