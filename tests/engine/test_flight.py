"""Do concurrent misses of a key share one fill, whichever callers come and leave?

Promises 4 and 5.
"""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.errors import NoSuchObject, OriginUnavailable, Overloaded
from cachesvc.core.keys import EntryKey
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")


def point(house: EngineHouse, key: EntryKey, owner: str = "") -> str:
    return f"origin {house.object_keys(key, owner)[0]}"


async def test_a_hundred_concurrent_misses_cost_one_set_of_origin_reads(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    versions = await asyncio.gather(*(house.version(PERSON) for _ in range(100)))
    assert versions == [1] * 100
    assert sorted(house.origin.reads) == sorted(house.object_keys(PERSON))
    assert house.metrics.value("coalesced_waiters") == 99
    assert house.metrics.value("fills") == 1


@pytest.mark.parametrize("leaving", [0, 1, 99], ids=["the leader", "a waiter", "the last one"])
async def test_a_waiter_that_leaves_does_not_cancel_the_fill(
    house: EngineHouse, leaving: int
) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(point(house, PERSON))
    waiters = [asyncio.create_task(house.version(PERSON)) for _ in range(100)]
    await stop.reached()
    waiters[leaving].cancel()
    await asyncio.gather(waiters[leaving], return_exceptions=True)
    stop.release()
    remaining = [waiter for waiter in waiters if waiter is not waiters[leaving]]
    assert await asyncio.gather(*remaining) == [1] * 99
    assert house.sets_read(PERSON) == 1


async def test_a_fill_that_everybody_left_still_lands_in_both_tiers(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(point(house, PERSON))
    waiters = [asyncio.create_task(house.get(PERSON)) for _ in range(5)]
    await stop.reached()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    stop.release()
    await house.settle()
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is not None
    assert inspected.disk is not None
    assert not inspected.is_filling


async def test_each_waiter_keeps_its_own_deadline(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(point(house, PERSON))
    patient = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(house.get(PERSON), timeout=0)
    stop.release()
    assert await patient == 1


async def test_the_failure_of_a_fill_reaches_every_waiter(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    house.origin.errors[house.object_keys(PERSON)[1]] = OriginUnavailable("away")
    failures = await asyncio.gather(*(house.get(PERSON) for _ in range(10)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [OriginUnavailable] * 10
    assert house.sets_read(PERSON) == 1


async def test_a_failed_fill_is_not_remembered(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    failing = house.object_keys(PERSON)[1]
    house.origin.errors[failing] = OriginUnavailable("away")
    with pytest.raises(OriginUnavailable):
        await house.get(PERSON)
    del house.origin.errors[failing]
    assert await house.version(PERSON) == 1


async def test_a_defect_in_a_fill_reaches_its_waiters_instead_of_hanging_them(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    house.origin.errors[house.object_keys(PERSON)[1]] = RuntimeError("a defect")  # type: ignore[assignment]
    failures = await asyncio.gather(*(house.get(PERSON) for _ in range(3)), return_exceptions=True)
    assert [getattr(failure, "reason", None) for failure in failures] == ["INTERNAL"] * 3
    assert len(house.engine.flights) == 0


async def test_a_call_with_another_owner_is_a_flight_of_its_own(house: EngineHouse) -> None:
    house.upload(GARMENT, 1, owner="bob")
    stop = house.gates.stop(point(house, GARMENT, "mallory"))
    wrong = asyncio.create_task(house.get(GARMENT, "mallory"))
    await stop.reached()
    assert await house.version(GARMENT, "bob") == 1
    stop.release()
    with pytest.raises(NoSuchObject):
        await wrong
    assert await house.version(GARMENT, "bob") == 1


async def test_a_wrong_owners_absence_poisons_nobody(house: EngineHouse) -> None:
    house.upload(GARMENT, 1, owner="bob")
    with pytest.raises(NoSuchObject):
        await house.get(GARMENT, "mallory")
    assert await house.version(GARMENT, "bob") == 1
    assert (await house.get(GARMENT, "mallory")).tier == "memory"


async def test_the_number_of_flights_is_bounded(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(max_flights=2)
    keys = [EntryKey("human_upper_body", name) for name in ("a", "b", "c")]
    stops = []
    getting = []
    for key in keys[:2]:
        house.upload(key, 1)
        stops.append(house.gates.stop(point(house, key)))
        getting.append(asyncio.create_task(house.version(key)))
        await stops[-1].reached()
    with pytest.raises(Overloaded) as failed:
        await house.get(keys[2])
    assert failed.value.reason == "TOO_MANY_FLIGHTS"
    # A flight that is under way may still be joined.
    joined = asyncio.create_task(house.version(keys[0]))
    for stop in stops:
        stop.release()
    assert await asyncio.gather(*getting, joined) == [1, 1, 1]


async def test_one_dead_key_does_not_hold_up_another(house: EngineHouse) -> None:
    bob = EntryKey("human_upper_body", "bob")
    house.upload(PERSON, 1)
    house.upload(bob, 2)
    stop = house.gates.stop(point(house, PERSON))
    stuck = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    assert await house.version(bob) == 2
    assert await house.version(bob) == 2
    stop.release()
    assert await stuck == 1


async def test_an_entry_that_expires_while_its_row_is_still_being_written_is_filled_again(
    house: EngineHouse,
) -> None:
    """A disk that hangs keeps the landed flight alive; no caller may join it after its TTL."""
    house.upload(PERSON, 1)
    stop = house.gates.stop("l2_write")
    assert await house.version(PERSON) == 1
    await stop.reached()
    house.upload(PERSON, 2)
    house.clock.advance(house.kinds.of(PERSON.namespace).ttl_s)
    assert await house.version(PERSON) == 2
    stop.release()
    await house.settle()
    await house.restart()
    assert await house.version(PERSON) == 2
