"""Stores in L2 what a flight filled, after the answer: no caller waits for the disk.

Writing takes processor time from misses that are still being decoded, so it begins when the
flights that have waiters are answered, or after MAX_HELD_BACK_S.

A: publishes, writes its L2 file | B: invalidates | A: queues its row -> dropped, file removed
A: queues its row | B: invalidates, DELETE queued behind it | both commit in that order
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from cachesvc.core.entry import EntryMeta
from cachesvc.core.errors import NotDurable
from cachesvc.core.tensors import Buffer
from cachesvc.engine.flight import Flight
from cachesvc.engine.state import State, log
from cachesvc.tiers.disk import Written

# How long other misses may delay a commit. The entries of one try-on land within this time,
# and an entry whose origin hangs must not keep others out of L2.
MAX_HELD_BACK_S = 0.1
# The answer is still being sent: a write that began at once would take a processor from it.
SENDING_S = 0.01


class Committer:
    """Commits landed flights. What waits for the disk is bounded in bytes."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def commit(self, flight: Flight, meta: EntryMeta, parts: tuple[Buffer, ...]) -> None:
        """Store the entry. If L2 does not admit it or fails, the entry stays in L1 only."""
        state = self._state
        if state.pending_commit_bytes + meta.size_bytes > state.limits.max_pending_bytes:
            state.metrics.disk_rejections.inc()
            return
        state.pending_commit_bytes += meta.size_bytes
        try:
            await self._let_answers_go_first()
            if not flight.fenced:
                await self._store(flight, meta, parts)
        except (OSError, NotDurable) as exc:
            state.metrics.disk_rejections.inc()
            log.warning("l2_commit_failed", namespace=meta.key.namespace, error=str(exc))
        finally:
            state.pending_commit_bytes -= meta.size_bytes

    async def _store(self, flight: Flight, meta: EntryMeta, parts: tuple[Buffer, ...]) -> None:
        state, started = self._state, time.monotonic()
        written = await state.disk.write(meta, *parts)
        if written is None:
            state.metrics.disk_rejections.inc()
            return
        try:
            await state.wait_until_clear(flight.key, meta.owner)
            committed = self._queue_commit(flight, meta, written)
        except BaseException:  # also if cancelled: leave no file without a row
            await state.disk.abandon(written)
            raise
        if committed is None:
            await state.disk.abandon(written)
            return
        await committed
        state.metrics.disk_written_bytes.inc(amount=meta.size_bytes)
        state.metrics.stage_seconds.observe(time.monotonic() - started, "l2_commit")

    async def _let_answers_go_first(self) -> None:
        """Return when the calls that wait now are answered, or MAX_HELD_BACK_S have passed.

        Later calls do not delay it: there may always be some.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_HELD_BACK_S):
                for other in self._state.flights.awaited():
                    await other.answered.wait()
        await asyncio.sleep(SENDING_S)

    def _queue_commit(
        self, flight: Flight, meta: EntryMeta, written: Written
    ) -> asyncio.Task[None] | None:
        """Queue the row unless a newer change has fenced the flight since it landed."""
        if flight.fenced:
            return None
        now = self._state.clock.read()
        accesses = self._state.uses.accesses_of(meta, 0)
        return self._state.disk.commit(written, accesses, now.steady_ns)
