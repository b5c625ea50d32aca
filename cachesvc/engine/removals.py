"""Invalidation: final once it answers, whatever is under way and whatever crashes.

    one function: fence flights and Puts, unlink L1 files, tombstone, queue the DELETE
    await the DELETE -> one function: lift the tombstone -> answer -> unlink L2's files

A reader that comes after the answer finds no L1 file, no row, and no flight that
began before.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from cachesvc.core.clock import Now
from cachesvc.core.errors import NotDurable
from cachesvc.core.events import Invalidation
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope
from cachesvc.engine.puts import PutTable
from cachesvc.engine.state import State, log

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Invalidated:
    """`removed_count` entries were cached; `at` is when the call arrived."""

    removed_count: int
    at: Now


@dataclass(frozen=True, slots=True)
class _Removal:
    scope: Scope
    changed_ns: int
    tombstone: int
    from_memory: list[EntryKey]
    durable: asyncio.Task[Any]


class Remover:
    """Runs invalidations, each in a task of its own: a caller that leaves stops nothing."""

    def __init__(self, state: State, puts: PutTable) -> None:
        self._state = state
        self._puts = puts
        # The latest change of each scope that is being retried.
        self._retrying: dict[Scope, int] = {}

    @property
    def unfinished(self) -> int:
        """Removals that could not be made durable yet."""
        return len(self._retrying)

    async def invalidate(
        self, scope: Scope, changed_at_ns: int | None = None, *, erase: bool = False
    ) -> Invalidated:
        """Remove what `scope` covers and remember when its source changed.

        Raises:
            NotDurable: nothing of it is served any more, it is being retried.
        """
        arrival = self._state.clock.read()
        changed_ns = min(changed_at_ns or arrival.wall_ns, arrival.wall_ns)
        removal = self._begin(scope, changed_ns)
        return await self._state.outliving_its_caller(
            self._acknowledge(removal, arrival, erase=erase), name="invalidate"
        )

    def _begin(self, scope: Scope, changed_ns: int) -> _Removal:
        state = self._state
        state.flights.fence(scope)
        self._puts.fence(scope)
        state.absences.clear(scope)
        from_memory = state.memory.remove_covered(scope)
        tombstone = state.tombstones.add(scope, changed_ns)
        durable = state.disk.invalidate(scope, changed_ns)
        return _Removal(scope, changed_ns, tombstone, from_memory, durable)

    async def _acknowledge(self, removal: _Removal, arrival: Now, *, erase: bool) -> Invalidated:
        """Finish it; what cannot be acknowledged is counted, also if the caller is gone."""
        try:
            return await self._finish(removal, arrival, erase=erase)
        except NotDurable:
            self._state.metrics.failed_invalidations.inc()
            raise

    async def _finish(self, removal: _Removal, arrival: Now, *, erase: bool) -> Invalidated:
        started = time.monotonic()
        try:
            locations = await removal.durable
        except NotDurable:
            self._retry(removal)
            raise
        except Exception as exc:
            # Whatever it was, the tombstone must not stay without anyone to lift it.
            log.exception("invalidation_failed", scope=removal.scope.kind.value)
            self._retry(removal)
            raise NotDurable("the removal failed and is being retried") from exc
        self._state.lift(removal.tombstone, removal.scope)
        unlinking = self._state.spawn(self._state.disk.unlink(locations), name="l2-unlink")
        if erase:
            self._erase_held(removal.scope)
            await unlinking
        await self._state.wait_for_succession()
        self._state.metrics.invalidations.inc()
        self._state.metrics.invalidation_seconds.observe(time.monotonic() - started)
        removed = {*removal.from_memory, *(location.key for location in locations)}
        self._state.events.invalidations.append(
            Invalidation(arrival.wall_ns, removal.scope, len(removed))
        )
        return Invalidated(len(removed), arrival)

    def _erase_held(self, scope: Scope) -> None:
        """Zero what workers still have mapped; nobody was told that it is done if it fails."""
        try:
            self._state.memory.erase_held(scope)
        except OSError as exc:
            raise NotDurable(
                "the entries are gone, but what workers have mapped could not be zeroed; retry",
                reason="ERASE_FAILED",
            ) from exc

    def _retry(self, removal: _Removal) -> None:
        """Keep the tombstone and try until it is durable. One retry covers a scope."""
        if removal.scope in self._retrying:
            changed_ns = max(removal.changed_ns, self._retrying[removal.scope])
            self._retrying[removal.scope] = changed_ns
            # The other one's tombstone stays at least as long as this one would.
            self._state.lift(removal.tombstone, removal.scope)
            return
        log.error("invalidation_not_durable", scope=removal.scope.kind.value)
        self._retrying[removal.scope] = removal.changed_ns
        self._state.spawn(self._retry_until_durable(removal), name="invalidate-retry")

    async def _retry_until_durable(self, removal: _Removal) -> None:
        try:
            while True:
                await asyncio.sleep(RETRY_S)
                try:
                    changed_ns = self._retrying[removal.scope]
                    locations = await self._state.disk.invalidate(removal.scope, changed_ns)
                except Exception as exc:  # noqa: BLE001 whatever it is, the tombstone needs an end
                    log.error("invalidation_retry_failed", error=str(exc))
                    continue
                self._state.lift(removal.tombstone, removal.scope)
                await self._state.disk.unlink(locations)
                return
        finally:
            del self._retrying[removal.scope]
