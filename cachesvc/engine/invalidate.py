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

from cachesvc.core.clock import Now
from cachesvc.core.errors import NotDurable
from cachesvc.core.events import Invalidation
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Change, Scope, ScopeKind
from cachesvc.engine.put import PutTable
from cachesvc.engine.state import State, log
from cachesvc.tiers.disk_files import Location

RETRY_S = 1.0
# The problem that keeps the daemon from being ready while an invalidation is owed.
PROBLEM = "invalidations"


@dataclass(frozen=True, slots=True)
class Invalidated:
    """`removed_count` entries were cached; `at` is when the call arrived."""

    removed_count: int
    at: Now


@dataclass(frozen=True, slots=True)
class _Begun:
    scope: Scope
    change: Change
    tombstone: int
    from_memory: list[EntryKey]
    durable: asyncio.Task[list[Location]]


@dataclass(frozen=True, slots=True, eq=False)
class _Owed:
    """The latest change of a scope that a retry has to record; its tombstone covers the scope."""

    change: Change
    tombstone: int


class Invalidator:
    """Runs invalidations, each in a task of its own: a caller that leaves stops nothing."""

    def __init__(self, state: State, puts: PutTable) -> None:
        self._state = state
        self._puts = puts
        # At most one retry for each scope, until its change is durable or the daemon ends.
        self._retrying: dict[Scope, _Owed] = {}

    @property
    def unfinished(self) -> int:
        """How many scopes have an invalidation that is not durable yet."""
        return len(self._retrying)

    async def invalidate(
        self, scope: Scope, changed_at_ns: int | None = None, *, erase: bool = False
    ) -> Invalidated:
        """Remove what `scope` covers and remember when its source changed.

        Raises:
            NotDurable: nothing of `scope` is served any more. The daemon retries, except for
                reason ERASE_FAILED, which the caller has to retry.
        """
        arrival = self._state.read_time()
        changed_ns = min(changed_at_ns or arrival.wall_ns, arrival.wall_ns)
        begun = self._begin(scope, changed_ns)
        return await self._state.outliving_its_caller(
            self._acknowledge(begun, arrival, erase=erase), name="invalidate"
        )

    def _begin(self, scope: Scope, changed_ns: int) -> _Begun:
        state = self._state
        state.flights.fence(scope)
        self._puts.fence(scope)
        state.absences.clear(scope)
        from_memory = state.memory.remove_covered(scope)
        tombstone = state.tombstones.add(scope, changed_ns)
        # Fixed here: a retry must not delete what is stored and acknowledged later.
        change = state.disk.change_of(scope, changed_ns)
        durable = state.disk.invalidate(change)
        return _Begun(scope, change, tombstone, from_memory, durable)

    async def _acknowledge(self, begun: _Begun, arrival: Now, *, erase: bool) -> Invalidated:
        """Finish the invalidation; count a failure even if the caller is gone."""
        try:
            return await self._finish(begun, arrival, erase=erase)
        except NotDurable:
            self._state.metrics.failed_invalidations.inc()
            raise

    async def _finish(self, begun: _Begun, arrival: Now, *, erase: bool) -> Invalidated:
        started = time.monotonic()
        try:
            locations = await begun.durable
        except NotDurable:
            self._retry(begun)
            raise
        except Exception as exc:
            # Whatever failed, a retry has to lift the tombstone.
            log.exception("invalidation_failed", scope=begun.scope.kind.value)
            self._retry(begun)
            raise NotDurable("the invalidation failed and is being retried") from exc
        self._state.lift(begun.tombstone, begun.scope)
        unlinking = self._state.spawn(self._state.disk.unlink(locations), name="l2-unlink")
        if erase:
            await self._erase(begun.scope)
            await unlinking
        if erase or begun.scope.kind in (ScopeKind.NAMESPACE, ScopeKind.EVERYTHING):
            await self._erase_set_aside(begun.scope)
        self._state.check_nothing_owed(begun.scope)
        await self._state.wait_for_succession()
        self._state.metrics.invalidations.inc()
        self._state.metrics.invalidation_seconds.observe(time.monotonic() - started)
        removed = {*begun.from_memory, *(location.key for location in locations)}
        self._state.events.invalidations.append(
            Invalidation(arrival.wall_ns, begun.scope, len(removed))
        )
        return Invalidated(len(removed), arrival)

    async def _erase(self, scope: Scope) -> None:
        """End answers that are being sent, and zero what workers have mapped, in a thread.

        If this fails, nothing has been acknowledged yet.
        """
        try:
            await self._state.in_worker(self._state.memory.erase(scope))
        except OSError as exc:
            raise NotDurable(
                "the entries are gone, but what workers have mapped could not be zeroed; retry",
                reason="ERASE_FAILED",
            ) from exc

    async def _erase_set_aside(self, scope: Scope) -> None:
        """Remove damaged files and a catalog that were kept for a person to look at."""
        try:
            await self._state.disk.erase_set_aside(scope)
        except OSError as exc:
            raise NotDurable(
                "the entries are gone, but what was set aside of them as damaged could not be"
                " removed; retry",
                reason="ERASE_FAILED",
            ) from exc

    def _retry(self, begun: _Begun) -> None:
        """Keep a tombstone and retry until the change is durable."""
        scope, owed = begun.scope, self._retrying.get(begun.scope)
        new = _Owed(begun.change, begun.tombstone)
        if owed is None:
            log.error("invalidation_not_durable", scope=scope.kind.value)
            self._retrying[scope] = new
            self._state.problems.set(PROBLEM, "not durable yet: the disks refuse them")
            self._state.spawn(self._retry_until_durable(scope), name="invalidate-retry")
            return
        # One tombstone is enough: the later change's, with which Puts are compared.
        is_later = new.change.changed_ns >= owed.change.changed_ns
        later, earlier = (new, owed) if is_later else (owed, new)
        # Always store a new object: `_end_retry` compares identity, so an attempt already
        # running does not satisfy this invalidation.
        self._retrying[scope] = _Owed(new.change.and_of(owed.change), later.tombstone)
        self._state.lift(earlier.tombstone, scope)

    async def _retry_until_durable(self, scope: Scope) -> None:
        while True:
            await asyncio.sleep(RETRY_S)
            owed = self._retrying[scope]
            try:
                locations = await self._state.disk.invalidate(owed.change)
            except Exception as exc:  # noqa: BLE001 whatever failed, the tombstone must be lifted
                log.error("invalidation_retry_failed", error=str(exc))
                continue
            is_over = self._end_retry(scope, owed)
            await self._state.disk.unlink(locations)
            if is_over:
                return

    def _end_retry(self, scope: Scope, done: _Owed) -> bool:
        """Lift the tombstone, unless another invalidation relies on this retry by now.

        A: queues its DELETE | Put: its row commits | B: invalidates, fails, counts on A
        A: durable, but not for that row, nor for B's change -> tries again

        One function: B comes before it and A goes on, or B comes after it and has its own retry.
        """
        if self._retrying[scope] is not done:
            return False
        del self._retrying[scope]
        if not self._retrying:
            self._state.problems.clear(PROBLEM)
        self._state.lift(done.tombstone, scope)
        return True
