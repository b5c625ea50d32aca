"""Does the simulation find what it is there for? The engine is broken here, one rule at a time.

Each variant replaces one function of the engine for the length of a test, and some seed has
to object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cachesvc.core import verdict
from cachesvc.core.clock import AgeLimit
from cachesvc.core.entry import EntryMeta
from cachesvc.core.errors import CacheError
from cachesvc.core.freshness import Need
from cachesvc.core.scopes import Tombstones
from cachesvc.core.tensors import Buffer
from cachesvc.engine.commit import Committer
from cachesvc.engine.flight import Flight, FlightTable, Served
from cachesvc.engine.flight_run import FlightRunner
from cachesvc.engine.get import Getter, ReadRequest
from cachesvc.engine.invalidate import Invalidated, Invalidator
from cachesvc.engine.put import PutTable, Putter, Upload
from cachesvc.engine.state import State
from tests.simulation.run import run_seed
from tests.simulation.test_seeds import ALL_SEEDS, QUICK_SEEDS

Break = Callable[[pytest.MonkeyPatch], None]


def no_fence_check_at_publication(patch: pytest.MonkeyPatch) -> None:
    publish = FlightRunner._publish

    def unchecked(self: FlightRunner, flight: Flight, *rest: Any, **more: Any) -> None:
        fenced, flight.fenced = flight.fenced, False
        try:
            publish(self, flight, *rest, **more)
        finally:
            flight.fenced = fenced

    patch.setattr(FlightRunner, "_publish", unchecked)


def fence_checked_before_the_last_await(patch: pytest.MonkeyPatch) -> None:
    async def early(
        self: FlightRunner, flight: Flight, meta: EntryMeta, parts: tuple[Buffer, ...]
    ) -> None:
        state = self._state
        room = self._room(flight, meta.size_bytes)
        flight.check_fence()
        await state.in_worker(state.memory.write, room, parts)
        steady_ns = state.clock.read().steady_ns
        state.memory.publish(room, meta, accesses=0, steady_ns=steady_ns)
        assert room.blob is not None
        flight.land(Served(meta, room.blob, "origin", meta.expires_ns(0)))

    patch.setattr(FlightRunner, "_publish_bytes", early)


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tombstones, "covers", lambda *_: False)


def promotion_outside_the_flight(patch: pytest.MonkeyPatch) -> None:
    get = Getter._get

    async def from_disk_first(self: Getter, request: ReadRequest) -> Served:
        state = self._state
        steady_ns = state.clock.read().steady_ns
        if state.memory.lookup(request.key, steady_ns) is None and not request.origin_after_ns:
            row = await state.disk.lookup(request.key)
            if row is not None and steady_ns < row.expires_ns:
                room = state.memory.reserve(request.key, row.meta.size_bytes)
                await state.disk.read_into(row, lambda chunks: state.memory.write(room, chunks))
                state.memory.publish(room, row.meta, accesses=0, steady_ns=steady_ns)
        return await get(self, request)

    patch.setattr(Getter, "_get", from_disk_first)


def as_of_ignored(patch: pytest.MonkeyPatch) -> None:
    async def unchecked(self: Putter, upload: Upload) -> None: ...

    patch.setattr(Putter, "_check_as_of", unchecked)


def changes_under_way_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tombstones, "last_change_ns", lambda *_: 0)


def put_forgotten_when_its_caller_leaves(patch: pytest.MonkeyPatch) -> None:
    def remove(self: PutTable, upload: Upload) -> None:
        self._uploads.pop(upload, None)

    patch.setattr(PutTable, "remove", remove)


def row_queued_without_a_look_at_the_fence(patch: pytest.MonkeyPatch) -> None:
    queue = Committer._queue_commit

    def unchecked(self: Committer, flight: Flight, meta: EntryMeta, written: object) -> Any:
        fenced, flight.fenced = flight.fenced, False
        try:
            return queue(self, flight, meta, written)
        finally:
            flight.fenced = fenced

    patch.setattr(Committer, "_queue_commit", unchecked)


def invalidation_answered_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    finish = Invalidator._finish

    async def at_once(self: Invalidator, begun: Any, arrival: Any, *, erase: bool) -> Invalidated:
        self._state.spawn(finish(self, begun, arrival, erase=erase), name="invalidate")
        return Invalidated(0, arrival)

    patch.setattr(Invalidator, "_finish", at_once)


def put_answered_before_its_row(patch: pytest.MonkeyPatch) -> None:
    replace = Putter._replace

    async def at_once(self: Putter, upload: Upload, meta: EntryMeta, data: bytes) -> Served:
        self._state.spawn(replace(self, upload, meta, data), name="put")
        await asyncio.sleep(0)
        return Served(meta, self._state.memory.heap_room(0).blob, "memory", meta.expires_ns(0))

    patch.setattr(Putter, "_replace", at_once)


def flight_ends_with_the_waiter_that_leaves(patch: pytest.MonkeyPatch) -> None:
    wait, run = Flight.wait, FlightRunner._run
    tasks: dict[Flight, asyncio.Task[Any]] = {}

    async def known(self: FlightRunner, flight: Flight) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks[flight] = task
        await run(self, flight)

    def tied(self: Flight) -> asyncio.Future[Served]:
        future = wait(self)

        def end(ended: asyncio.Future[Served]) -> None:
            if ended.cancelled() and self in tasks:
                tasks[self].cancel()

        future.add_done_callback(end)
        return future

    patch.setattr(FlightRunner, "_run", known)
    patch.setattr(Flight, "wait", tied)


def each_miss_is_a_flight_of_its_own(patch: pytest.MonkeyPatch) -> None:
    find = FlightTable.find

    def none_to_join(self: FlightTable, key: Any, owner: str) -> None:
        flight = find(self, key, owner)
        if flight is not None:
            self.detach(flight)

    patch.setattr(FlightTable, "find", none_to_join)


def a_refused_put_keeps_the_replaced_file(patch: pytest.MonkeyPatch) -> None:
    publish = Putter._publish

    def refused(self: Putter, *rest: Any, **more: Any) -> Served:
        try:
            return publish(self, *rest, **more)
        except CacheError:
            disk: Any = self._state.disk

            async def once(locations: Any) -> None:
                del disk.unlink

            disk.unlink = once
            raise

    patch.setattr(Putter, "_publish", refused)


def a_stored_time_later_than_now_meets_origin_after(patch: pytest.MonkeyPatch) -> None:
    def believed(origin_ns: int, need: Need, grace_ns: int, *, read_ns: int) -> bool:
        return origin_ns + grace_ns >= need.moment_ns

    patch.setattr(verdict, "is_new_enough", believed)


def changes_from_later_than_now_are_kept(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: State) -> None: ...

    patch.setattr(State, "lower_times", nothing)
    patch.setattr(State, "lower_changes", nothing)


def a_start_astray_drops_by_age(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AgeLimit, "expired_before_ns", lambda self, now, keep_ns: now.steady_ns - keep_ns)


VARIANTS: tuple[Break, ...] = (
    a_refused_put_keeps_the_replaced_file,
    a_stored_time_later_than_now_meets_origin_after,
    changes_from_later_than_now_are_kept,
    fence_checked_before_the_last_await,
    promotion_outside_the_flight,
    as_of_ignored,
    put_forgotten_when_its_caller_leaves,
    row_queued_without_a_look_at_the_fence,
    put_answered_before_its_row,
    flight_ends_with_the_waiter_that_leaves,
    each_miss_is_a_flight_of_its_own,
)
# The same, in schedules that are rarer.
RARE_VARIANTS: tuple[Break, ...] = (
    a_start_astray_drops_by_age,
    no_tombstone,
    no_fence_check_at_publication,
    changes_under_way_ignored,
    invalidation_answered_before_its_commit,
)


# Where the quick tier's seeds begin, for what the first ones do not meet.
FIRST_SEEDS: dict[Break, int] = {
    fence_checked_before_the_last_await: 500,
    row_queued_without_a_look_at_the_fence: 250,
}


def first_seed_that_objects(seeds: int, first: int = 0) -> int | None:
    return next((seed for seed in range(first, first + seeds) if run_seed(seed).problems), None)


def name_of(variant: Break) -> str:
    return variant.__name__


@pytest.mark.parametrize("variant", VARIANTS, ids=name_of)
def test_a_broken_engine_is_found_within_the_quick_tiers_seeds(
    variant: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(monkeypatch)
    assert first_seed_that_objects(QUICK_SEEDS, FIRST_SEEDS.get(variant, 0)) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("variant", RARE_VARIANTS, ids=name_of)
def test_an_engine_that_is_seldom_wrong_is_found_within_the_long_tiers_seeds(
    variant: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant(monkeypatch)
    found = first_seed_that_objects(ALL_SEEDS)
    assert found is not None
    print(f"{name_of(variant)}: seed {found}")  # noqa: T201 - the figure of the run
