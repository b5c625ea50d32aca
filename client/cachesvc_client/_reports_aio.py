"""Reports a client's local hits on its event loop; the upkeep runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from cachesvc_client._fork import running_loop
from cachesvc_client._local import LocalDelivery


class HitReports:
    """Runs `report`, which takes the hits and sends them, on the loop that was last used."""

    def __init__(self, report: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[Any]] = set()

    def remember_loop(self) -> None:
        """Remember the running loop as the one to report on."""
        self._loop = running_loop()

    def begin(self) -> None:
        """Let the loop report if it still runs; otherwise keep the hits. For any thread.

        The loop also takes the hits. If the upkeep's thread took them, a `close` meanwhile
        would find none and close the channel before they are sent.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            return
        reporting = self._run()
        try:
            asyncio.run_coroutine_threadsafe(reporting, loop)
        except RuntimeError:  # the loop was closed at this moment
            reporting.close()

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._report()
        finally:
            self._running.discard(task)

    async def finish(self, local: LocalDelivery) -> None:
        """Report the last hits of `local`, before the connection to the daemon is closed."""
        await self._report()
        # The upkeep began these reports. A report that begins later finds no hits.
        loop = running_loop()
        begun = [task for task in tuple(self._running) if task.get_loop() is loop]
        if begun:
            await asyncio.wait(begun)
