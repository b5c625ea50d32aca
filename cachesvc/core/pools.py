"""How does a pool get its threads: all at once, when it is made.

A pool that starts its threads with the work finds out in the middle of a Put that the process
may not have another one.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from cachesvc.core.errors import ConfigError

# What Python says if the kernel refuses a thread.
REFUSED = "can't start new thread"
NO_THREAD = (
    "the process may not start another thread: raise TasksMax= of the unit, pids.max of the "
    "container, or `ulimit -u`"
)


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads run already.

    Raises:
        ConfigError: the process may not have so many.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    # Each waits for all others, so that none of them takes a second task.
    together = threading.Barrier(threads)
    try:
        for _ in range(threads):
            pool.submit(together.wait)
    except RuntimeError as exc:
        together.abort()
        pool.shutdown(wait=False, cancel_futures=True)
        raise ConfigError(NO_THREAD) from exc
    return pool
