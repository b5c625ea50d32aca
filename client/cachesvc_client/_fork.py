"""Whether gRPC can work in this process at all: not in the child of one that used grpc.aio.

Its poller is global and its thread does not survive a fork. What then happens
depends on the grpcio version, up to a crash of sync channels too (1.71), so both
clients refuse instead. A parent that used the sync client only is no problem, as
long as gRPC's own fork handlers are not switched off (GRPC_ENABLE_FORK_SUPPORT=0:
the first call in the child hangs; tried with grpcio 1.71 and 1.85).
"""

from __future__ import annotations

import os

# The process that first used asyncio gRPC; the poller is global, and so is this.
_asyncio_used_in: list[int] = []


def note_asyncio_use() -> None:
    """Remember this process as the one whose children cannot use gRPC."""
    if not _asyncio_used_in:
        _asyncio_used_in.append(os.getpid())


def refuse_if_forked_after_asyncio() -> None:
    """Raise RuntimeError in a child forked after its parent used asyncio gRPC."""
    if _asyncio_used_in and _asyncio_used_in[0] != os.getpid():
        raise RuntimeError(
            "this process was forked from one that had used asyncio gRPC, which cannot "
            "work here: start workers with spawn, or fork before the first call"
        )
