"""How a caller leaves a streamed answer early, and the daemon is told."""

from __future__ import annotations

import contextlib
from typing import Any


def leave(stream: Any) -> None:
    """End a stream; no effect on one that has ended.

    A tracing library may return a plain generator in the place of gRPC's call: it has no `cancel`.
    A closed generator drops the call that it reads from, which cancels that call.
    """
    if hasattr(stream, "cancel"):
        stream.cancel()
    elif hasattr(stream, "close"):
        with contextlib.suppress(ValueError):  # an interrupted call still reads from it
            stream.close()
