"""One thread that does all catalog writes, in the order they were queued.

Writes that are queued while another commit runs share the next one: an fsync
costs the same for one row as for a hundred.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

MAX_BATCH = 256
T = TypeVar("T")


@dataclass(slots=True)
class Write(Generic[T]):
    """One queued write. The thread sets `result` or `error`, then the future follows."""

    run: Callable[[Any], T]
    future: asyncio.Future[T]
    result: T | None = None
    error: BaseException | None = None


# Sets each write's result or error, and never raises.
RunBatch = Callable[[list[Write[Any]]], None]


class WriteQueue:
    """Runs writes by `run_batch`, in a thread of its own."""

    def __init__(self, run_batch: RunBatch) -> None:
        self._run_batch = run_batch
        self._queue: queue.SimpleQueue[Write[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="catalog-writer", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """How many writes wait."""
        return self._queue.qsize()

    def put(self, run: Callable[[Any], T]) -> asyncio.Future[T]:
        """Queue a write; its order is fixed when this returns.

        The write happens even if no caller waits for the future.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(Write(run, future))
        return future

    def close(self) -> None:
        """Finish what is queued and end the thread. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while True:
            batch, ended = self._next_batch()
            if batch:
                self._run_batch(batch)
                loop = batch[0].future.get_loop()
                # At exit the loop may be gone; the writes are durable all the same.
                if not loop.is_closed():
                    loop.call_soon_threadsafe(resolve, batch)
            if ended:
                return

    def _next_batch(self) -> tuple[list[Write[Any]], bool]:
        batch: list[Write[Any]] = []
        write = self._queue.get()
        while write is not None:
            batch.append(write)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                write = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True


def resolve(batch: list[Write[Any]]) -> None:
    """Hand each write's result or error to its waiter, on the loop."""
    for write in batch:
        if write.future.done():  # its waiter left
            continue
        if write.error is not None:
            write.future.set_exception(write.error)
        else:
            write.future.set_result(write.result)
