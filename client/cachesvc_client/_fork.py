"""Can gRPC work in this process? Not under gevent's or eventlet's patches, without an event loop,
or in the child of a process that used grpc.aio.

The poller of grpc.aio is global, and its thread does not survive a fork. The effect depends on the
grpcio version, up to a crash even of sync channels (1.71), so both clients refuse. A parent that
used only the sync client is no problem, unless gRPC's own fork handlers are switched off
(GRPC_ENABLE_FORK_SUPPORT=0: the first call in the child hangs; tried with grpcio 1.71 and 1.85).
"""

from __future__ import annotations

import asyncio
import os
import sys

# The pid of the process that first used asyncio gRPC; global, as the poller is.
_asyncio_used_in: list[int] = []


def note_asyncio_use() -> None:
    """Note that children of this process cannot use gRPC."""
    if not _asyncio_used_in:
        _asyncio_used_in.append(os.getpid())


def refuse_if_forked_after_asyncio() -> None:
    """Raise RuntimeError in a child forked after its parent used asyncio gRPC."""
    if _asyncio_used_in and _asyncio_used_in[0] != os.getpid():
        raise RuntimeError(
            "gRPC cannot work in this process, whose parent had used asyncio gRPC before the fork: "
            "start workers with spawn, or fork before the first call"
        )


def refuse_if_patched() -> None:
    """Raise RuntimeError where threads are greenlets: gRPC's calls would hang."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched("threading"):
        by, way = "gevent", "monkey.patch_all(thread=False)"
    elif eventlet is not None and eventlet.is_monkey_patched("thread"):
        by, way = "eventlet", "eventlet.monkey_patch(thread=False)"
    else:
        return
    raise RuntimeError(
        f"{by} has replaced this process's threads, and gRPC's calls would hang: patch without "
        f"threads ({way}), or call the cache in another process"
    )


def running_loop() -> asyncio.AbstractEventLoop:
    """Return asyncio's running loop. Raises RuntimeError."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "AsyncCacheClient needs asyncio's running event loop, and there is none here; under "
            "trio use CacheClient in a thread (trio.to_thread.run_sync)"
        ) from None
