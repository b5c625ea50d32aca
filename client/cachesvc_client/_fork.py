"""Can gRPC work in this process? Not in the child of a process that used grpc.aio.

The poller of grpc.aio is global, and its thread does not survive a fork. The effect depends on the
grpcio version, up to a crash even of sync channels (1.71), so both clients refuse. A parent that
used only the sync client is no problem, unless gRPC's own fork handlers are switched off
(GRPC_ENABLE_FORK_SUPPORT=0: the first call in the child hangs; tried with grpcio 1.71 and 1.85).
"""

from __future__ import annotations

import os

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
