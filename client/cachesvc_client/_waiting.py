"""How a call waits: in the caller's own thread, within its deadline and `wait_s`."""

from __future__ import annotations

import time
from concurrent import futures
from typing import TypeVar

A = TypeVar("A")

TimedOut = futures.TimeoutError


def pause(pause_s: float) -> None:
    time.sleep(pause_s)  # the caller's own thread, for which it set `wait_s`


def result_of(future: futures.Future[A], within_s: float) -> A:
    """Return the future's result. Raises TimedOut."""
    return future.result(within_s)
