"""How a caller leaves a streamed answer early, and the daemon is told."""

from __future__ import annotations

from typing import Any


async def leave(stream: Any) -> None:
    """End a stream; no effect on one that has ended.

    A tracing library may return a plain generator in the place of gRPC's call: it has no `cancel`.
    """
    if hasattr(stream, "cancel"):
        stream.cancel()
    elif hasattr(stream, "aclose"):
        await stream.aclose()
