"""How does a test act between an answer and the client's use of it?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar

from cachesvc_client._link import Link
from cachesvc_client._link_aio import AsyncLink
from cachesvc_client.requests import Call, Upload

A = TypeVar("A")
HELD_AT_MOST_S = 20.0


class InterposedLink:
    """The real link; it calls `then` after the first answer that names a shared file."""

    def __init__(self, link: Link, then: Callable[[], Any]) -> None:
        self._link = link
        self._then = then
        self._done = False
        self.calls = 0

    def ask(self, call: Call[A], timeout_s: float) -> A:
        answer = self._link.ask(call, timeout_s)
        self.calls += 1
        if not self._done and getattr(answer, "file", None) is not None:
            self._done = True
            self._then()
        return answer

    def collect(self, call: Call[A], timeout_s: float) -> A:
        return self._link.collect(call, timeout_s)

    def follow(self, call: Call[A], timeout_s: float) -> Generator[A, None, None]:
        return self._link.follow(call, timeout_s)

    def send(self, upload: Upload[A], timeout_s: float) -> A:
        return self._link.send(upload, timeout_s)

    def close(self) -> None:
        self._link.close()


class HeldReports(InterposedLink):
    """The real link; a report of hits waits until the test waits for it, or the link is closed."""

    def __init__(self, link: Link) -> None:
        super().__init__(link, lambda: None)
        self.begun = threading.Event()
        self.released = threading.Event()

    def ask(self, call: Call[A], timeout_s: float) -> A:
        if call.method == "ReportHits":
            self.begun.set()
            assert self.released.wait(HELD_AT_MOST_S)
        return super().ask(call, timeout_s)

    def close(self) -> None:
        super().close()
        self.released.set()


class AioHeldReports:
    """As `HeldReports`, for asyncio; a report waits for many turns of the loop."""

    TURNS = 100

    def __init__(self, link: AsyncLink) -> None:
        self._link = link
        self.begun = asyncio.Event()

    async def ask(self, call: Call[A], timeout_s: float) -> A:
        if call.method == "ReportHits":
            self.begun.set()
            for _ in range(self.TURNS):
                await asyncio.sleep(0)
        return await self._link.ask(call, timeout_s)

    async def collect(self, call: Call[A], timeout_s: float) -> A:
        return await self._link.collect(call, timeout_s)

    def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]:
        return self._link.follow(call, timeout_s)

    async def send(self, upload: Upload[A], timeout_s: float) -> A:
        return await self._link.send(upload, timeout_s)

    async def close(self) -> None:
        await self._link.close()
