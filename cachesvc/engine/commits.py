"""Stores what a flight filled in L2, behind the answer: nobody waits for the disk.

A: publishes, writes its L2 file | B: invalidates | A: queues its row -> dropped, file removed
A: queues its row | B: invalidates, DELETE queued behind it | both commit in that order
"""

from __future__ import annotations

import asyncio
import time

from cachesvc.core.entry import EntryMeta
from cachesvc.core.errors import NotDurable
from cachesvc.engine.flights import Flight
from cachesvc.engine.state import State, log


class Committer:
    """Commits landed flights. What waits for the disk is bounded in bytes."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def commit(self, flight: Flight, meta: EntryMeta, data: bytes) -> None:
        """Store the entry. If L2 does not admit it, or fails, it stays in L1 only."""
        state = self._state
        if state.pending_commit_bytes + len(data) > state.limits.max_pending_bytes:
            state.metrics.disk_rejections.inc()
            return
        state.pending_commit_bytes += len(data)
        started = time.monotonic()
        try:
            written = await state.disk.write(meta, data)
            if written is None:
                state.metrics.disk_rejections.inc()
                return
            await state.wait_until_clear(flight.key, meta.owner)
            committed = self._queue_commit(flight, meta, written)
            if committed is None:
                await state.disk.abandon(written)
                return
            await committed
        except (OSError, NotDurable) as exc:
            state.metrics.disk_rejections.inc()
            log.warning("l2_commit_failed", namespace=meta.key.namespace, error=str(exc))
        else:
            state.metrics.disk_written_bytes.inc(amount=len(data))
            state.metrics.stage_seconds.observe(time.monotonic() - started, "l2_commit")
        finally:
            state.pending_commit_bytes -= len(data)

    def _queue_commit(
        self, flight: Flight, meta: EntryMeta, written: object
    ) -> asyncio.Task[None] | None:
        """Queue the row unless a newer change has fenced the flight since it landed."""
        if flight.fenced:
            return None
        now = self._state.clock.read()
        accesses = self._state.uses.accesses_of(meta, 0)
        return self._state.disk.commit(written, accesses, now.steady_ns)
