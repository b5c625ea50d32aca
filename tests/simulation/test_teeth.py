"""Does the simulation find what it is there for? The engine is broken here, one rule at a time.

Each variant replaces one function of the engine during a test. Some seed has to object, and to
name what that rule is about.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from cachesvc.core import verdict
from cachesvc.core.clock import AgeLimit
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.errors import (
    CacheError,
    MemoryFull,
    NoSuchObject,
    OriginDenied,
    OriginUnavailable,
)
from cachesvc.core.freshness import Need
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Tombstones
from cachesvc.core.tensors import Buffer
from cachesvc.core.tier import Tier
from cachesvc.engine.breaker import Asking, OriginBreaker
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
        try:
            flight.check_fence()
            await state.in_worker(state.memory.write, room, parts)
            fenced, flight.fenced = flight.fenced, False
            self._publish(flight, meta, room, Tier.ORIGIN, accesses=0)
            flight.fenced = fenced
        finally:
            state.memory.discard(room)

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
                try:
                    await state.disk.read_into(row, lambda chunks: state.memory.write(room, chunks))
                    state.memory.publish(room, row.meta, accesses=0, steady_ns=steady_ns)
                except (FileNotFoundError, MemoryFull):
                    pass  # the flight finds out for itself
                finally:
                    state.memory.discard(room)
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


# ---- the circuit breaker


def the_circuit_never_opens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OriginBreaker, "_fail", lambda *_: None)


def the_circuit_never_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(OriginBreaker, "_close", lambda _: None)


def an_open_circuit_lets_no_probe_through(patch: pytest.MonkeyPatch) -> None:
    admit = OriginBreaker._admit

    def refusing(self: OriginBreaker, key: EntryKey, asked: Asking) -> None:
        if self._paused_until_ns is not None:
            raise OriginUnavailable("the circuit is open", reason="ORIGIN_CIRCUIT_OPEN")
        admit(self, key, asked)

    patch.setattr(OriginBreaker, "_admit", refusing)


def one_entry_opens_the_circuit(patch: pytest.MonkeyPatch) -> None:
    fail, numbers = OriginBreaker._fail, itertools.count()

    def another_each_time(self: OriginBreaker, key: EntryKey, asked: Asking) -> None:
        fail(self, EntryKey(key.namespace, f"{key.id}-{next(numbers)}"), asked)

    patch.setattr(OriginBreaker, "_fail", another_each_time)


def a_bad_entry_takes_every_probe(patch: pytest.MonkeyPatch) -> None:
    admit = OriginBreaker._admit

    def forgetting(self: OriginBreaker, key: EntryKey, asked: Asking) -> None:
        failed, self._failed = self._failed, {}
        try:
            admit(self, key, asked)
        finally:
            self._failed = failed

    patch.setattr(OriginBreaker, "_admit", forgetting)


def an_absence_counts_as_a_failure(patch: pytest.MonkeyPatch) -> None:
    asking = OriginBreaker.asking

    @contextmanager
    def counting(self: OriginBreaker, key: EntryKey) -> Iterator[Asking]:
        absence = None
        try:
            with asking(self, key) as asked:
                try:
                    yield asked
                except NoSuchObject as exc:
                    absence = exc
                    raise OriginUnavailable("absent") from exc
        except OriginUnavailable:
            if absence is not None:
                raise absence from None
            raise

    patch.setattr(OriginBreaker, "asking", counting)


def the_circuit_refuses_what_l2_holds(patch: pytest.MonkeyPatch) -> None:
    fly = FlightRunner._fly

    async def refused(self: FlightRunner, flight: Flight) -> None:
        if self._filler.breaker.is_open:
            raise OriginUnavailable("the circuit is open", reason="ORIGIN_CIRCUIT_OPEN")
        await fly(self, flight)

    patch.setattr(FlightRunner, "_fly", refused)


def stale_bytes_answer_for_an_origin_that_refuses(patch: pytest.MonkeyPatch) -> None:
    fly = FlightRunner._fly_from_origin

    async def stale(self: FlightRunner, flight: Flight, owner: str, row: Row | None) -> None:
        try:
            await fly(self, flight, owner, row)
        except OriginDenied:
            if row is None or not await self._serve_stale(flight):
                raise

    patch.setattr(FlightRunner, "_fly_from_origin", stale)


class Tooth(NamedTuple):
    """A variant, and `said`: what a seed has to say of it. `first` is the first seed that plays.

    No seed before `first` finds the variant, or it says something else of it.
    """

    variant: Break
    said: str
    first: int = 0


NO_ORDER = "no order of these calls explains what was served"
QUICK_TEETH = (
    Tooth(a_refused_put_keeps_the_replaced_file, "files without a row"),
    Tooth(a_stored_time_later_than_now_meets_origin_after, "older than origin_after"),
    Tooth(changes_from_later_than_now_are_kept, "is not put"),
    Tooth(as_of_ignored, NO_ORDER),
    Tooth(promotion_outside_the_flight, NO_ORDER, 200),
    Tooth(fence_checked_before_the_last_await, NO_ORDER, 1000),
    Tooth(put_forgotten_when_its_caller_leaves, NO_ORDER),
    Tooth(row_queued_without_a_look_at_the_fence, "a row outlived its invalidation", 100),
    Tooth(put_answered_before_its_row, NO_ORDER),
    Tooth(flight_ends_with_the_waiter_that_leaves, "the daemon is shutting down"),
    Tooth(each_miss_is_a_flight_of_its_own, "objects are read at"),
    Tooth(the_circuit_never_opens, "was let through, and the circuit was open"),
    Tooth(the_circuit_never_closes, "was refused, and the circuit was not open"),
    Tooth(an_open_circuit_lets_no_probe_through, "is not served after an outage"),
    Tooth(one_entry_opens_the_circuit, "was refused, and the circuit was not open"),
    Tooth(a_bad_entry_takes_every_probe, "a probe of the same entry had just failed"),
    Tooth(an_absence_counts_as_a_failure, "was refused, and the circuit was not open"),
    Tooth(the_circuit_refuses_what_l2_holds, "L2 holds it, and a Get was answered"),
    Tooth(stale_bytes_answer_for_an_origin_that_refuses, "no fill of it could not ask the origin"),
)
# The same, in schedules that are rarer.
RARE_TEETH = (
    Tooth(a_start_astray_drops_by_age, "was dropped by its age"),
    Tooth(no_tombstone, NO_ORDER),
    Tooth(no_fence_check_at_publication, NO_ORDER),
    Tooth(changes_under_way_ignored, NO_ORDER),
    Tooth(invalidation_answered_before_its_commit, NO_ORDER),
)


def first_seed_that_says(said: str, seeds: range) -> int | None:
    """Return the first seed that has a problem with these words."""
    return next((seed for seed in seeds if said in "\n".join(run_seed(seed).problems)), None)


def name_of(tooth: Tooth) -> str:
    return tooth.variant.__name__


@pytest.mark.parametrize("tooth", QUICK_TEETH, ids=name_of)
def test_a_broken_engine_is_found_within_the_quick_tiers_seeds(
    tooth: Tooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    tooth.variant(monkeypatch)
    seeds = range(tooth.first, tooth.first + QUICK_SEEDS)
    assert first_seed_that_says(tooth.said, seeds) is not None


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tooth", RARE_TEETH, ids=name_of)
def test_an_engine_that_is_seldom_wrong_is_found_within_the_long_tiers_seeds(
    tooth: Tooth, monkeypatch: pytest.MonkeyPatch
) -> None:
    tooth.variant(monkeypatch)
    found = first_seed_that_says(tooth.said, range(ALL_SEEDS))
    assert found is not None
    print(f"{name_of(tooth)}: seed {found}")  # noqa: T201 - the figure of the run
