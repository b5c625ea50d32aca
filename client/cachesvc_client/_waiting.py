"""How a call waits: in the caller's own thread, within its deadline and `wait_s`.

Python runs the handlers of signals in the main thread, between any two of its steps, and they may
raise: KeyboardInterrupt, or a caller's own timeout. gRPC does not survive that: an exception in
`Condition.__enter__` leaves a lock of the channel, or of all channels, taken for ever.

    main: Condition.__enter__: takes gRPC's lock | handler raises | no `with` was begun: never freed

So the main thread's calls run in another thread, and the main thread waits in C. An interrupted
call goes on there until its deadline; nobody takes its answer.
"""

from __future__ import annotations

import _thread
import contextvars
import os
import threading
import time

# Not that of `queue`, which gevent replaces by one of greenlets, also with threads left alone.
from _queue import SimpleQueue
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, TypeVar

from cachesvc_client._fork import refuse_if_patched

A = TypeVar("A")

TimedOut = futures.TimeoutError

_END = object()


def pause(pause_s: float) -> None:
    time.sleep(pause_s)  # the caller's own thread, for which it set `wait_s`


def result_of(future: futures.Future[A], within_s: float) -> A:
    """Return the future's result. Raises TimedOut."""
    return future.result(within_s)


def off_main(work: Callable[..., A], *args: Any) -> A:
    """Return `work(*args)`, made in another thread if this is the main thread."""
    refuse_if_patched()
    if threading.get_ident() != threading.main_thread().ident:
        return work(*args)
    try:
        _workers.ensure()
    except RuntimeError:  # no thread may be started: Python is ending, or the host's limit
        return work(*args)
    return _workers.do(work, args)


def messages_of(stream: Any) -> Iterator[Any]:
    """Yield the messages of a stream; each is read as `off_main` does."""
    while (message := off_main(next, stream, _END)) is not _END:
        yield message


class _Workers:
    """Threads for the main thread's calls: one, and one more for each interrupted call.

    Only C functions hand work over, and only a worker counts itself as busy: no exception in the
    main thread can come between.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin without threads: a forked child has none."""
        self._jobs: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]]] = SimpleQueue()
        self._started: list[int] = []
        self._busy: list[int] = []

    def ensure(self) -> None:
        """Start a thread unless one is free. Raises RuntimeError."""
        if len(self._busy) >= len(self._started):
            _thread.start_new_thread(self._serve, (self._jobs, self._started, self._busy))

    def do(self, work: Callable[..., A], args: tuple[Any, ...]) -> A:
        answer: SimpleQueue[Any] = SimpleQueue()
        # The caller's context: a tracing library keeps its span there.
        context = contextvars.copy_context()
        self._jobs.put((lambda: context.run(work, *args), answer))
        result, error = answer.get()
        if error is not None:
            try:
                raise error
            finally:
                del error  # otherwise it and this frame would keep each other alive
        found: A = result
        return found

    @staticmethod
    def _serve(jobs: SimpleQueue[Any], started: list[int], busy: list[int]) -> None:
        started.append(1)
        while True:
            work, answer = jobs.get()
            busy.append(1)
            result: tuple[Any, BaseException | None]
            try:
                result = work(), None
            except BaseException as exc:  # noqa: BLE001 - the caller raises it
                result = None, exc
            busy.pop()
            answer.put(result)
            del work, answer, result  # otherwise they would live until the next call


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forget)
