"""In which order do callbacks run? In an order that a seed chooses, and that it can repeat.

`VirtualLoop` is an asyncio event loop that never waits and has no threads:

- The seed chooses which ready callback runs next. asyncio runs callbacks in the order in which
  they became ready; code that is right in every order is right in that one.
- Time is virtual: when no callback is ready, it jumps to the next timer. Each callback takes a
  microsecond, so no two callbacks run at the same moment.
- A job for a thread pool runs whole at a later moment that the seed chooses, and its caller
  learns the result later still. A job that is cancelled before it begins may run nevertheless:
  a thread may just have taken it.
- `abandon` ends a life as kill -9 does: nothing that was under way goes on.

Futures and tasks have numbers and hash by them, so that a set of them has the same order in
every process. `trace` is a digest of all callbacks that ran: the same seed gives the same
trace. The loop does not control code that reads the system's clock or starts a thread itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

STEP_NS = 1_000
# How long a job takes to begin, and its result to arrive: mostly short, sometimes long.
DELAYS_S = (1e-5, 1e-4, 1e-4, 1e-3, 1e-3, 1e-2, 1e-1)
T = TypeVar("T")


class NothingLeftToRun(AssertionError):
    """Every task waits, and no callback or timer is left that could wake one: a call hangs."""


class NumberedFuture(asyncio.Future[Any]):
    """Hashes by its number, not by its address."""

    def __init__(self, number: int, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.number = number

    def __hash__(self) -> int:
        return self.number


class NumberedTask(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(self, coro: Coroutine[Any, Any, Any], number: int, **more: Any) -> None:
        # A task hashes itself into the table of all tasks while it is made.
        self.number = number
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. `choose` makes every random choice; time starts at `began_ns`."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, choose: random.Random, began_ns: int = 0) -> None:
        super().__init__()
        self._choose = choose
        self._numbers = itertools.count(1)
        self._tasks: dict[int, NumberedTask] = {}
        self._digest = hashlib.blake2b(digest_size=16)
        self.now_ns = began_ns
        self.steps = 0
        self.log: list[str] | None = None
        self.set_task_factory(self._make_task)

    @property
    def trace(self) -> str:
        """Return a digest of what has run so far, and when."""
        return self._digest.hexdigest()

    def delay_s(self) -> float:
        """Return how long a thread or another machine takes."""
        return self._choose.choice(DELAYS_S) * self._choose.random()

    # ---- asyncio's hooks

    def time(self) -> float:
        return self.now_ns / 1e9

    def create_future(self) -> NumberedFuture:
        return NumberedFuture(next(self._numbers), loop=self)

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: Any,
        context: Context | None = None,
    ) -> NumberedTask:
        task = NumberedTask(coro, next(self._numbers), loop=loop, context=context)
        self._tasks[task.number] = task
        task.add_done_callback(lambda ended: self._tasks.pop(ended.number, None))
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        future = self.create_future()
        self.call_later(self.delay_s(), self._run_job, future, func, args)
        return future

    def _run_job(
        self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if future.cancelled() and self._choose.random() < 0.5:
            return
        try:
            result = func(*args)
        except Exception as exc:  # noqa: BLE001 it is the caller's
            self.call_later(self.delay_s(), _fail, future, exc)
        else:
            self.call_later(self.delay_s(), _settle, future, result)
        finally:
            # A thread pool does this as well: an error's traceback keeps this frame and its names.
            del future, func, args

    def _run_once(self) -> None:
        self.now_ns += STEP_NS
        if not self._take_due() and not self._ready:
            self._jump()
        at = self._choose.randrange(len(self._ready))
        handle = self._ready[at]
        del self._ready[at]
        if not handle.cancelled():
            self._note(handle)
            handle._run()

    def _take_due(self) -> bool:
        """Move timers that are due to the ready callbacks; return whether there were any."""
        taken = False
        while self._scheduled and (
            self._scheduled[0].cancelled() or self._scheduled[0].when() * 1e9 <= self.now_ns
        ):
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False  # type: ignore[attr-defined]
            if not timer.cancelled():
                self._ready.append(timer)
                taken = True
        return taken

    def _jump(self) -> None:
        if not self._scheduled:
            waiting = ", ".join(sorted(str(task.get_coro()) for task in self._tasks.values()))
            raise NothingLeftToRun(f"every task waits: {waiting}")
        self.now_ns = max(self.now_ns, int(self._scheduled[0].when() * 1e9) + 1)
        self._take_due()

    def _note(self, handle: asyncio.Handle) -> None:
        self.steps += 1
        callback = handle._callback  # type: ignore[attr-defined]
        owner = getattr(callback, "__self__", None)
        name = getattr(callback, "__qualname__", type(callback).__name__)
        if isinstance(owner, NumberedTask):
            name = f"{owner.number} {getattr(owner.get_coro(), '__qualname__', '')}"
        line = f"{self.now_ns} {name}\n"
        self._digest.update(line.encode())
        if self.log is not None:
            self.log.append(line)

    # ---- the end of a life

    def abandon(self) -> None:
        """Stop as kill -9 does: no task goes on, and no thread's result arrives."""
        self.set_exception_handler(lambda loop, context: None)
        self._ready.clear()
        self._scheduled.clear()
        for task in list(self._tasks.values()):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            # Otherwise the garbage collector closes them in the middle of the next life. An
            # `await` in a `finally` block raises RuntimeError: a killed process does nothing more.
            with contextlib.suppress(RuntimeError):
                task.get_coro().close()
        self._tasks.clear()
        self._ready.clear()
        self.close()

    # asyncio's base class needs these for threads and a selector, which this loop has not.
    def _write_to_self(self) -> None: ...

    def _process_events(self, event_list: object) -> None: ...


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
