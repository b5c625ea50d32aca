"""The event loop of the asyncio rows: asyncio's own, entered once for each call."""

from __future__ import annotations

import asyncio


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop for `run_until_complete`.

    asyncio.Runner is not used: each time that it restores the SIGINT handler, Python 3.11 formats
    the finished task, and with it the tensors of the result. That costs 4 ms a call.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop
