"""Knows how far a fill has come, and so which error it fails with when its time is up.

A slot is for reading. A fill that has read all members gives its slot back before they are
decoded, so that large images do not keep other fills from asking the origin. It keeps the
slot if too many bytes already wait to be decoded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from cachesvc.core.errors import CacheError, HostBusy, OriginUnavailable, Overloaded

# The origin is to blame for a late fill only if it had this part of the deadline.
ORIGINS_PART = 0.5


class FillStages:
    """One fill, from its place in the queue to its last member."""

    def __init__(self, deadline_s: float, on_answer: Callable[[], None]) -> None:
        self._deadline_s = deadline_s
        self._on_answer = on_answer
        self._on_read: Callable[[], None] = lambda: None
        self._deadline: asyncio.Timeout | None = None
        self._began: float | None = None
        self._unread: list[str] = []
        self._max_entry_bytes = 0
        self._expected_bytes = 0
        self._largest = (0, "")
        self.read_bytes = 0

    def has_slot(self, on_read: Callable[[], None]) -> None:
        """Begin; `on_read` is called when all members are read."""
        self._began, self._on_read = _now_s(), on_read

    def runs_until(self, deadline: asyncio.Timeout) -> None:
        self._deadline = deadline

    def begin_reading(self, object_keys: Sequence[str], max_entry_bytes: int) -> None:
        self._unread = list(object_keys)
        self._max_entry_bytes = max_entry_bytes

    @contextmanager
    def reading(self, object_key: str) -> Iterator[None]:
        """Add the object's key to an error that its read raises."""
        if object_key not in self._unread:
            self._unread.append(object_key)
        try:
            yield
        except CacheError as exc:
            exc.object_keys = exc.object_keys or (object_key,)
            raise
        self._unread.remove(object_key)

    def has_read(self, data: bytes) -> None:
        self.read_bytes += len(data)
        if not self._unread:
            self._on_answer()
            self._on_read()

    def expect(self, size_bytes: int, object_key: str) -> None:
        """Count what a member's header says. Raises Overloaded, reason ENTRY_TOO_LARGE."""
        self._expected_bytes += size_bytes
        self._largest = max(self._largest, (size_bytes, object_key))
        self.check_size(self._expected_bytes)

    def check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_entry_bytes:
            raise Overloaded(
                f"the entry has {size_bytes:,} bytes or more; limits.max_entry_bytes is "
                f"{self._max_entry_bytes:,}",
                reason="ENTRY_TOO_LARGE",
                object_keys=(self._largest[1],) if self._largest[1] else (),
            )

    def is_origin_late(self) -> bool:
        """Return whether a read that is cancelled now had its time.

        Otherwise the answer of another member has decided the fill, or the fill began late.
        """
        is_over = self._deadline is not None and self._deadline.expired()
        return is_over and self._began is not None and self._had_its_part(self._began)

    def too_late(self) -> CacheError:
        """Return the error of a fill whose time is up."""
        if self._began is None or (self._unread and not self._had_its_part(self._began)):
            return HostBusy("too many fills wait for the origin; retry later", reason="FILLS_BUSY")
        if self._unread:
            return OriginUnavailable(
                "the origin did not answer in time; retry",
                reason="FILL_DEADLINE",
                object_keys=tuple(self._unread),
            )
        return HostBusy("too many images wait to be decoded; retry later", reason="DECODE_QUEUE")

    def _had_its_part(self, began: float) -> bool:
        return _now_s() - began >= ORIGINS_PART * self._deadline_s


def _now_s() -> float:
    """Return the time of the clock that the fill's deadline is measured with."""
    return asyncio.get_running_loop().time()


class Slots:
    """Limits the fills that read at once, and the bytes that wait for decoding without a slot."""

    def __init__(self, at_once: int, most_waiting_bytes: int) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._most_waiting_bytes = most_waiting_bytes
        self._waiting_bytes = 0

    @asynccontextmanager
    async def taken(self, stages: FillStages) -> AsyncIterator[None]:
        """Own a slot until `stages` has read everything, at the latest until the block ends."""
        await self._free.acquire()
        waiting_bytes = 0
        has_slot = True

        def give_back_early() -> None:
            nonlocal waiting_bytes, has_slot
            if not has_slot or self._waiting_bytes + stages.read_bytes > self._most_waiting_bytes:
                return
            waiting_bytes, has_slot = stages.read_bytes, False
            self._waiting_bytes += waiting_bytes
            self._free.release()

        stages.has_slot(give_back_early)
        try:
            yield
        finally:
            self._waiting_bytes -= waiting_bytes
            if has_slot:
                self._free.release()
