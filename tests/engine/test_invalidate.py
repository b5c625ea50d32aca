"""Is an invalidation final, at whatever point a fill is when it comes?

Promise 1. A fill of version 1 is stopped at a point, the photo becomes version 2, and the
invalidation answers. After that no caller is served version 1.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from cachesvc.core.errors import Aborted, NoSuchObject, PreconditionFailed
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.engine.get import MAX_FENCED
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")

# The points of a fill from the origin, in order.
FILL_POINTS = (
    "l2_looked_up",
    "origin users/alice/vton-cache/upper/human_img.png",
    "origin users/alice/vton-cache/upper/pose_tensor.pkl",
    "decoded",
    "l1_written",
    "l2_write",
    "l2_written",
)
PROMOTION_POINTS = ("l2_looked_up", "l2_read", "l1_written")
SCOPES = {
    "user": lambda house: subject_scope(Subject.USER, "alice", house.kinds),
    "key": lambda house: key_scope(PERSON),
    "owner": lambda house: Scope(ScopeKind.OWNER, "alice"),
    "namespace": lambda house: Scope(ScopeKind.NAMESPACE, PERSON.namespace),
    "everything": lambda house: Scope(ScopeKind.EVERYTHING),
}


async def assert_only_version_2_is_left(house: EngineHouse) -> None:
    """Check what L1 and L2 serve, and what is served after a crash."""
    assert await house.version(PERSON) == 2
    await house.settle()
    assert await house.version(PERSON) == 2
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2
    await house.restart()
    assert await house.version(PERSON) == 2
    assert len(house.files()) == 1


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("point", FILL_POINTS)
async def test_a_fill_that_an_invalidation_overtook_is_served_to_nobody_later(
    house: EngineHouse, point: str, scope: str
) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(point)
    first = asyncio.create_task(house.version(PERSON))
    await stop.reached()

    house.upload(PERSON, 2)
    await house.cache.invalidate(SCOPES[scope](house))
    second = asyncio.create_task(house.version(PERSON))
    stop.release()

    assert await second == 2
    # This Get began before the invalidation, so it may also have been answered before it.
    assert await first == (1 if point in ("l2_write", "l2_written") else 2)
    await assert_only_version_2_is_left(house)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("point", PROMOTION_POINTS)
async def test_a_promotion_that_an_invalidation_overtook_is_served_to_nobody_later(
    house: EngineHouse, point: str, scope: str
) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    await house.restart()
    stop = house.gates.stop(point)
    first = asyncio.create_task(house.version(PERSON))
    await stop.reached()

    house.upload(PERSON, 2)
    await house.cache.invalidate(SCOPES[scope](house))
    second = asyncio.create_task(house.version(PERSON))
    stop.release()

    assert await second == 2
    assert await first == 2
    await assert_only_version_2_is_left(house)


@pytest.mark.parametrize("point", FILL_POINTS)
async def test_a_crash_after_the_invalidation_brings_nothing_back(
    house: EngineHouse, point: str
) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(point)
    first = asyncio.create_task(house.get(PERSON))
    await stop.reached()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    await house.restart()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)

    assert await house.version(PERSON) == 2
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_a_commit_that_is_queued_first_is_undone_by_the_invalidation_behind_it(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop("l2_written")
    first = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    stop.release()
    await first
    # The fill queues its row in the loop's next steps; the invalidation may find the row queued.
    invalidated = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
    house.upload(PERSON, 2)
    await invalidated
    await house.settle()
    await assert_only_version_2_is_left(house)


async def test_the_mixed_members_of_two_photos_end_with_the_invalidation_after_the_last_object(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    held = house.object_keys(PERSON)[0]
    stop = house.gates.stop(f"origin {held}")
    getting = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    assert await getting == 2


async def test_waiters_of_a_fenced_flight_move_to_one_fresh_flight(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop("decoded")
    waiters = [asyncio.create_task(house.version(PERSON)) for _ in range(20)]
    await stop.reached()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    assert await asyncio.gather(*waiters) == [2] * 20
    assert house.sets_read(PERSON) == 2


async def _lose_fences(house: EngineHouse, times: int) -> asyncio.Task[int]:
    """Start a Get, and invalidate its key `times` times during its fills."""
    stop = house.gates.stop("decoded")
    getting = asyncio.create_task(house.version(PERSON))
    for index in range(times):
        await stop.reached()
        following = house.gates.stop("decoded") if index + 1 < times else None
        await house.cache.invalidate(key_scope(PERSON))
        stop.release()
        stop = following or stop
    return getting


async def test_a_get_survives_five_fences(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    getting = await _lose_fences(house, MAX_FENCED)
    assert await getting == 1


async def test_the_sixth_fence_aborts_a_get(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    getting = await _lose_fences(house, MAX_FENCED + 1)
    with pytest.raises(Aborted) as failed:
        await getting
    assert failed.value.reason == "FILL_FENCED"


async def test_one_fenced_flight_is_counted_once(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop("decoded")
    getting = asyncio.create_task(house.get(PERSON))
    await stop.reached()
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    await getting
    await house.settle()
    assert house.metrics.value("fenced_fills") == 1


async def test_an_owners_invalidation_fences_a_flight_whose_owner_is_not_known_yet(
    house: EngineHouse,
) -> None:
    house.upload(GARMENT, 1, owner="bob")
    await house.get(GARMENT, "bob")
    await house.settle()
    await house.restart()
    stop = house.gates.stop("l2_read")
    # Only L2's row says whose the garment is, and the flight has not promoted it yet.
    getting = asyncio.create_task(house.get(GARMENT, ""))
    await stop.reached()
    await house.cache.invalidate(Scope(ScopeKind.OWNER, "bob"))
    stop.release()
    with pytest.raises(PreconditionFailed) as failed:
        await getting
    assert failed.value.reason == "OWNER_REQUIRED"


@pytest.mark.parametrize("promotes", ["before", "after"])
async def test_a_row_that_was_read_while_its_invalidation_was_under_way_is_not_promoted(
    house: EngineHouse, promotes: str
) -> None:
    """The Get names another owner than the row, so its flight is not fenced when it begins."""
    house.upload(GARMENT, 1, owner="bob")
    await house.get(GARMENT, "bob")
    await house.settle()
    await house.restart()
    writer_may_go = threading.Event()
    house.catalog._writes.put(lambda db: writer_may_go.wait(20))
    house.gates.stop("l2_unlink")  # the file stays while any read could open it
    invalidating = asyncio.create_task(house.cache.invalidate(Scope(ScopeKind.OWNER, "bob")))
    await asyncio.sleep(0)
    stop = house.gates.stop("l2_looked_up")
    getting = asyncio.create_task(house.get(GARMENT, "alice"))
    await stop.reached()
    if promotes == "before":
        stop.release()
        with pytest.raises(NoSuchObject):
            await getting
    writer_may_go.set()
    await invalidating
    stop.release()
    with pytest.raises(NoSuchObject):
        await getting
    assert (await house.cache.inspect(GARMENT)).memory is None


@pytest.mark.parametrize("scope", SCOPES)
async def test_an_invalidation_is_final_where_l1s_files_were_deleted_under_the_daemon(
    house: EngineHouse, scope: str
) -> None:
    """logind deletes these files so at the end of a user's last session (RemoveIPC)."""
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    for path in (house.runtime / "l1").iterdir():
        path.unlink()
    house.upload(PERSON, 2)
    done = await house.cache.invalidate(SCOPES[scope](house))
    assert done.removed_count == 1
    await assert_only_version_2_is_left(house)


async def test_an_owners_invalidation_reaches_what_others_cached_from_that_prefix(
    house: EngineHouse,
) -> None:
    house.upload(GARMENT, 1, owner="bob")
    await house.get(GARMENT, "bob")
    await house.settle()
    done = await house.cache.invalidate(Scope(ScopeKind.OWNER, "bob"))
    assert done.removed_count == 1
    house.upload(GARMENT, 2, owner="bob")
    assert await house.version(GARMENT, "bob") == 2


async def test_an_invalidation_leaves_other_entries_alone(house: EngineHouse) -> None:
    bob = EntryKey("human_upper_body", "bob")
    house.upload(PERSON, 1)
    house.upload(bob, 1)
    await house.get(PERSON)
    await house.get(bob)
    done = await house.cache.invalidate(subject_scope(Subject.USER, "alice", house.kinds))
    assert done.removed_count == 1
    assert (await house.get(bob)).tier == "memory"


async def test_a_caller_that_leaves_does_not_stop_its_invalidation(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    leaving = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await house.settle()
    assert not house.engine.tombstones.covers(PERSON, "alice")
    house.upload(PERSON, 2)
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_invalidations_hold_after_the_wall_clock_went_back(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    house.clock.step_wall(-365 * 24 * 3600)
    await house.cache.invalidate(key_scope(PERSON))
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_a_fenced_fill_that_still_queues_for_the_origin_does_not_ask_it(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.open(max_concurrent_fills=1)
    bob = EntryKey("human_upper_body", "bob")
    house.upload(bob, 1)
    house.upload(PERSON, 1)
    stop = house.gates.stop(f"origin {house.object_keys(bob)[0]}")
    first = asyncio.create_task(house.get(bob))
    await stop.reached()
    getting = asyncio.create_task(house.version(PERSON))
    for _ in range(MAX_FENCED):
        while not house.engine.flights.is_filling(PERSON):
            await asyncio.sleep(0)
        await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    await first
    assert await getting == 1
    await house.settle()
    assert house.sets_read(PERSON) == 1
    # A fenced flight says nothing about the origin, and is not counted as a failed fill.
    assert house.metrics.value("failed_fills") == 0
