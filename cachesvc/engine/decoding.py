"""Bounds the memory that all fills together use to decode.

Decoding an image needs several times the bytes of its tensor; the header says how many. Each
decode owns that many bytes before it begins. Large decodes wait in a lane of their own, so a
small image never waits behind them, and they leave a thread free for it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# The lane of small decodes has a quarter of the bytes; a small decode needs at most a
# sixteenth. A photo of 768x1024 needs 10 MB.
SMALL_LANE_PART = 4
SMALL_PART = 16
_NO_LIMIT = 1 << 30


class DecodingRoom:
    """Bytes for decoding. Belongs to the event loop."""

    def __init__(self, budget_bytes: int) -> None:
        small_lane_bytes = budget_bytes // SMALL_LANE_PART
        self._most_small_bytes = budget_bytes // SMALL_PART
        self._small = _Lane(small_lane_bytes, _NO_LIMIT)
        # There are as many workers as processors, at least two; one stays free.
        self._large = _Lane(budget_bytes - small_lane_bytes, max(1, (os.cpu_count() or 1) - 1))

    @property
    def used_bytes(self) -> int:
        return self._small.used_bytes + self._large.used_bytes

    @asynccontextmanager
    async def taken(self, needed_bytes: int) -> AsyncIterator[None]:
        """Wait for `needed_bytes` and own them. A decode larger than its lane runs alone in it."""
        lane = self._small if needed_bytes <= self._most_small_bytes else self._large
        await lane.take(needed_bytes)
        try:
            yield
        finally:
            lane.give_back(needed_bytes)


@dataclass(slots=True)
class _Lane:
    """First come, first served: decodes that fit now cannot overtake a larger one for ever."""

    budget_bytes: int
    most_at_once: int
    used_bytes: int = 0
    _running: int = 0
    _waiting: deque[tuple[int, asyncio.Future[None]]] = field(default_factory=deque)

    async def take(self, needed_bytes: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((needed_bytes, turn))
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_in()
            else:  # its turn came in the same moment
                self.give_back(needed_bytes)
            raise

    def give_back(self, needed_bytes: int) -> None:
        self.used_bytes -= needed_bytes
        self._running -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            needed_bytes, turn = self._waiting[0]
            if not turn.done():  # otherwise its task was cancelled
                if not self._has_room(needed_bytes):
                    return
                self.used_bytes += needed_bytes
                self._running += 1
                turn.set_result(None)
            self._waiting.popleft()

    def _has_room(self, needed_bytes: int) -> bool:
        if not self._running:
            return True
        fits = self.used_bytes + needed_bytes <= self.budget_bytes
        return fits and self._running < self.most_at_once
