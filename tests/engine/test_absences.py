"""Is a remembered absence answered without asking the origin, and what ends it?

Promises 3 and 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from cachesvc.core.errors import NoSuchObject, OriginUnavailable
from cachesvc.core.freshness import ANY_AGE
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, DEFAULT_ABSENT_TTL_S, Kinds, Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.engine.absences import MAX_ABSENCES, Absence, Absences
from tests.support.engine.house import EngineHouse

GARMENT = EntryKey("garment", "shirt")
OWNER = "bob"
REQUESTS = 1000

ScopeOf = Callable[[EngineHouse], Scope]
COVERING: dict[str, ScopeOf] = {
    "clothing": lambda house: subject_scope(Subject.CLOTHING, "shirt", house.kinds),
    "key": lambda house: key_scope(GARMENT),
    "owner": lambda house: Scope(ScopeKind.OWNER, OWNER),
    "namespace": lambda house: Scope(ScopeKind.NAMESPACE, "garment"),
    "everything": lambda house: Scope(ScopeKind.EVERYTHING),
}
OTHER: dict[str, ScopeOf] = {
    "clothing": lambda house: subject_scope(Subject.CLOTHING, "coat", house.kinds),
    "user": lambda house: subject_scope(Subject.USER, OWNER, house.kinds),
    "owner": lambda house: Scope(ScopeKind.OWNER, "carol"),
    "namespace": lambda house: Scope(ScopeKind.NAMESPACE, "text"),
}


async def learn_absence(house: EngineHouse) -> NoSuchObject:
    with pytest.raises(NoSuchObject) as failed:
        await house.get(GARMENT, OWNER)
    await house.settle()
    return failed.value


async def assert_still_absent(house: EngineHouse) -> None:
    """Check that the origin is not asked, although it has the garment by now."""
    house.origin.reads.clear()
    with pytest.raises(NoSuchObject):
        await house.get(GARMENT, OWNER)
    assert house.origin.reads == []


async def test_a_thousand_requests_for_a_missing_key_cost_one_set_of_origin_reads(
    house: EngineHouse,
) -> None:
    together = [house.get(GARMENT, OWNER) for _ in range(REQUESTS // 2)]
    failures = await asyncio.gather(*together, return_exceptions=True)
    for _ in range(REQUESTS // 2):
        failures.append(await learn_absence(house))
        house.clock.advance(DEFAULT_ABSENT_TTL_S / REQUESTS)
    assert {type(failure) for failure in failures} == {NoSuchObject}
    assert len(failures) == REQUESTS
    assert all(house.origin.reads.count(key) <= 1 for key in house.object_keys(GARMENT, OWNER))
    assert house.metrics.value("unserved_requests", outcome="not_found") == REQUESTS


async def test_a_remembered_absence_names_the_same_objects(house: EngineHouse) -> None:
    house.upload(GARMENT, 1, OWNER)
    missing = house.object_keys(GARMENT, OWNER)[1]
    del house.origin.objects[missing]
    first, second = await learn_absence(house), await learn_absence(house)
    assert first.object_keys == second.object_keys == (missing,)
    assert first.reason == second.reason == "NO_SUCH_OBJECT"
    assert house.sets_read(GARMENT, OWNER) == 1


async def test_an_absence_names_all_objects_that_are_absent(house: EngineHouse) -> None:
    """Promise 3: not one of them, which was the first by chance."""
    key = EntryKey("text", "shirt")
    house.upload(key, 1, OWNER)
    objects = house.object_keys(key, OWNER)
    absent = (objects[0], objects[2], objects[4])
    for name in absent:
        del house.origin.objects[name]
    for _ in range(2):  # the second is remembered
        with pytest.raises(NoSuchObject) as failed:
            await house.get(key, OWNER)
        assert failed.value.object_keys == absent
        await house.settle()


async def test_an_absence_does_not_wait_for_the_objects_that_are_there(house: EngineHouse) -> None:
    house.upload(GARMENT, 1, OWNER)
    there, missing = house.object_keys(GARMENT, OWNER)
    del house.origin.objects[missing]
    house.gates.stop(f"origin {there}")  # never goes on
    absence = await learn_absence(house)
    assert absence.object_keys == (missing,)


async def test_an_absence_is_forgotten_after_its_time(house: EngineHouse) -> None:
    await learn_absence(house)
    house.upload(GARMENT, 1, OWNER)
    house.clock.advance(DEFAULT_ABSENT_TTL_S - 0.001)
    await assert_still_absent(house)
    house.clock.advance(0.001)
    assert await house.version(GARMENT, OWNER) == 1


async def test_a_wall_clock_that_is_set_does_not_prolong_an_absence(house: EngineHouse) -> None:
    await learn_absence(house)
    house.upload(GARMENT, 1, OWNER)
    house.clock.step_wall(-3600)
    house.clock.advance(DEFAULT_ABSENT_TTL_S)
    assert await house.version(GARMENT, OWNER) == 1


async def test_one_owners_absence_hides_nothing_of_anothers(house: EngineHouse) -> None:
    await learn_absence(house)
    house.upload(GARMENT, 1, "carol")
    assert await house.version(GARMENT, "carol") == 1


async def test_a_put_ends_an_absence(house: EngineHouse) -> None:
    await learn_absence(house)
    await house.put(GARMENT, 1, owner=OWNER)
    house.memory.remove(GARMENT, Leaving.BYTES_LIMIT)
    assert await house.version(GARMENT, OWNER) == 1


@pytest.mark.parametrize("scope", COVERING)
async def test_an_invalidation_that_covers_an_absence_ends_it(
    house: EngineHouse, scope: str
) -> None:
    await learn_absence(house)
    house.upload(GARMENT, 1, OWNER)
    await house.cache.invalidate(COVERING[scope](house))
    assert await house.version(GARMENT, OWNER) == 1


@pytest.mark.parametrize("scope", OTHER)
async def test_an_invalidation_of_something_else_leaves_an_absence(
    house: EngineHouse, scope: str
) -> None:
    await learn_absence(house)
    house.upload(GARMENT, 1, OWNER)
    await house.cache.invalidate(OTHER[scope](house))
    await assert_still_absent(house)


async def test_a_call_that_knows_of_a_later_upload_asks_the_origin(house: EngineHouse) -> None:
    await learn_absence(house)
    house.clock.advance(1)
    house.upload(GARMENT, 1, OWNER)
    uploaded_ns = house.clock.read().wall_ns
    assert await house.version(GARMENT, OWNER, origin_after_ns=uploaded_ns) == 1


async def test_a_call_that_knows_of_an_earlier_upload_does_not(house: EngineHouse) -> None:
    uploaded_ns = house.clock.read().wall_ns
    house.clock.advance(1)
    await learn_absence(house)
    house.origin.reads.clear()
    with pytest.raises(NoSuchObject):
        await house.get(GARMENT, OWNER, origin_after_ns=uploaded_ns)
    assert house.origin.reads == []


async def test_the_time_of_an_absence_is_when_it_was_asked_for_and_not_its_answers(
    house: EngineHouse,
) -> None:
    stop = house.gates.stop(f"origin {house.object_keys(GARMENT, OWNER)[0]}")
    house.gates.stop(f"origin {house.object_keys(GARMENT, OWNER)[1]}")
    asking = asyncio.create_task(learn_absence(house))
    await stop.reached()
    house.clock.advance(1)
    house.upload(GARMENT, 1, OWNER)
    uploaded_ns = house.clock.read().wall_ns
    house.clock.advance(1)
    stop.release()
    await asking
    assert await house.version(GARMENT, OWNER, origin_after_ns=uploaded_ns) == 1


async def test_a_fill_ends_an_absence_even_where_it_does_not_fill_l1(house: EngineHouse) -> None:
    await learn_absence(house)
    house.clock.advance(1)
    house.upload(GARMENT, 1, OWNER)
    uploaded_ns = house.clock.read().wall_ns
    await house.get(GARMENT, OWNER, origin_after_ns=uploaded_ns, to_memory=False)
    await house.settle()
    assert (await house.get(GARMENT, OWNER)).tier == "disk"


async def test_a_fenced_flight_records_no_absence(house: EngineHouse) -> None:
    stop = house.gates.stop(f"origin {house.object_keys(GARMENT, OWNER)[0]}")
    house.gates.stop(f"origin {house.object_keys(GARMENT, OWNER)[1]}")
    getting = asyncio.create_task(house.version(GARMENT, OWNER))
    await stop.reached()
    house.upload(GARMENT, 1, OWNER)
    await house.cache.invalidate(key_scope(GARMENT))
    stop.release()
    assert await getting == 1
    await house.settle()
    assert len(house.engine.absences) == 0


async def test_a_failure_is_not_remembered_as_an_absence(house: EngineHouse) -> None:
    house.upload(GARMENT, 1, OWNER)
    failing = house.object_keys(GARMENT, OWNER)[0]
    house.origin.errors[failing] = OriginUnavailable("away")
    with pytest.raises(OriginUnavailable):
        await house.get(GARMENT, OWNER)
    house.origin.errors.clear()
    assert await house.version(GARMENT, OWNER) == 1


async def test_a_kind_may_have_no_absences(closed_house: EngineHouse) -> None:
    house = closed_house
    house.kinds = Kinds(tuple(replace(kind, absent_ttl_s=0.0) for kind in BUILT_IN))
    house.open()
    await learn_absence(house)
    house.upload(GARMENT, 1, OWNER)
    assert await house.version(GARMENT, OWNER) == 1


def test_the_number_of_absences_is_bounded_and_the_oldest_goes_first() -> None:
    absences = Absences()
    absence = Absence(asked_ns=0, until_ns=1, object_keys=())
    keys = [EntryKey("garment", f"c{index}") for index in range(MAX_ABSENCES + 1)]
    for key in keys:
        absences.add(key, OWNER, absence)
    assert len(absences) == MAX_ABSENCES == 10_000
    absences.check(keys[0], OWNER, ANY_AGE, steady_ns=0)
    with pytest.raises(NoSuchObject):
        absences.check(keys[1], OWNER, ANY_AGE, steady_ns=0)
