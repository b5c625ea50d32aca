"""How does a pool get its threads? All at once, when it is made.

A pool that starts a thread when work arrives could reach the process's limit in the middle of
a Put.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cachesvc.core.errors import ConfigError

NO_THREAD = (
    "the process may not start another thread: raise TasksMax= of the unit, pids.max of the "
    "container, or `ulimit -u`"
)


def is_refused_thread(exc: BaseException) -> bool:
    """Return whether `exc` is Python's error for a thread that the kernel refused to start."""
    return isinstance(exc, RuntimeError) and "can't start new thread" in str(exc)


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads run already.

    Raises:
        ConfigError: the process may not start so many threads.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    # Each thread waits for all others, so that none takes a second task.
    together = threading.Barrier(threads)
    try:
        for _ in range(threads):
            pool.submit(together.wait)
    except RuntimeError as exc:
        together.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise ConfigError(NO_THREAD) from exc
    return pool
