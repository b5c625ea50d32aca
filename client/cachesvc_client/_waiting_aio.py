"""How a call waits: in its task, within its deadline and `wait_s`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from concurrent import futures
from typing import Any, TypeVar

A = TypeVar("A")

TimedOut = asyncio.TimeoutError


async def pause(pause_s: float) -> None:
    await asyncio.sleep(pause_s)


async def result_of(future: futures.Future[A], within_s: float) -> A:
    """Return the future's result. Raises TimedOut."""
    return await asyncio.wait_for(asyncio.wrap_future(future), within_s)


async def off_main(work: Callable[..., Awaitable[A]], *args: Any) -> A:
    """Return `work(*args)`. The synchronous client uses another thread."""
    return await work(*args)


def messages_of(stream: AsyncIterable[A]) -> AsyncIterable[A]:
    """Return `stream`. The synchronous client reads it in another thread."""
    return stream
