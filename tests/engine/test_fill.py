"""Is NOT_FOUND said only when the origin said so, and does every fill end in time?

Promises 3 and 8.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import structlog

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import (
    CacheError,
    HostBusy,
    NoSuchObject,
    OriginDataCorrupt,
    OriginDenied,
    OriginUnavailable,
    Overloaded,
    PreconditionFailed,
)
from cachesvc.core.keys import EntryKey
from cachesvc.metrics import ORIGIN_OUTCOMES
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")
DAY_NS = 24 * 3600 * NS_PER_S


async def test_a_missing_member_is_not_found_and_the_rest_is_not_kept(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    missing = house.object_keys(PERSON)[-1]
    del house.origin.objects[missing]
    with pytest.raises(NoSuchObject) as failed:
        await house.get(PERSON)
    assert failed.value.object_keys == (missing,)
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is None
    assert inspected.disk is None


async def test_an_absence_is_counted_and_logged_as_an_answer(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    members = house.object_keys(PERSON)
    del house.origin.objects[members[-1]]
    # These reads are under way when the absence decides the fill.
    for object_key in members[:-1]:
        house.gates.stop(f"origin {object_key}")
    with structlog.testing.capture_logs() as lines, pytest.raises(NoSuchObject):
        await house.get(PERSON)
    outcomes = {
        outcome: house.metrics.value("origin_requests", outcome=outcome)
        for outcome in ORIGIN_OUTCOMES
    }
    expected = {"not_found": 1, "cancelled": len(members) - 1}
    assert outcomes == dict.fromkeys(ORIGIN_OUTCOMES, 0) | expected
    assert house.metrics.value("absent_fills") == 1
    assert house.metrics.value("failed_fills") == 0
    assert [line["event"] for line in lines] == ["fill_absent"]


async def test_a_read_that_ends_with_the_deadline_had_no_answer(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(fill_deadline_s=0.01)
    house.upload(PERSON, 1)
    members = house.object_keys(PERSON)
    for object_key in members:
        house.gates.stop(f"origin {object_key}")
    with pytest.raises(OriginUnavailable):
        await house.get(PERSON)
    assert house.metrics.value("origin_requests", outcome="unavailable") == len(members)
    assert house.metrics.value("failed_fills") == 1


async def test_an_expired_entry_whose_object_is_gone_is_an_absence(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.keep_expired_ns = DAY_NS
    house.open()
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    house.clock.advance(house.kinds.of(PERSON.namespace).ttl_s * 4)
    for object_key in house.object_keys(PERSON):
        del house.origin.objects[object_key]
    with pytest.raises(NoSuchObject):
        await house.get(PERSON)
    assert house.metrics.value("absent_fills") == 1
    assert house.metrics.value("failed_fills") == 0


@pytest.mark.parametrize(
    "error",
    [OriginUnavailable("away"), OriginDenied("no"), OriginDataCorrupt("bad")],
    ids=lambda error: type(error).__name__,
)
async def test_a_failure_of_the_origin_is_never_not_found(
    house: EngineHouse, error: CacheError
) -> None:
    house.upload(PERSON, 1)
    house.origin.errors[house.object_keys(PERSON)[2]] = error
    with pytest.raises(type(error)):
        await house.get(PERSON)
    assert house.metrics.value("unserved_requests", outcome="not_found") == 0
    assert house.metrics.value("unserved_requests", outcome="failed") == 1


async def test_a_member_that_cannot_be_decoded_names_its_object(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    bad = house.object_keys(PERSON)[3]
    house.origin.hold(bad, b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(OriginDataCorrupt) as failed:
        await house.get(PERSON)
    assert failed.value.object_keys == (bad,)
    assert house.metrics.value("decode_failures") == 1


async def test_what_is_cached_is_served_while_the_origin_is_away(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    await house.restart()
    for object_key in house.object_keys(PERSON):
        house.origin.errors[object_key] = OriginUnavailable("away")
    assert (await house.get(PERSON)).tier == "disk"
    assert (await house.get(PERSON)).tier == "memory"


async def test_a_miss_without_an_owner_says_that_the_owner_is_required(house: EngineHouse) -> None:
    house.upload(GARMENT, 1, owner="bob")
    with pytest.raises(PreconditionFailed) as failed:
        await house.get(GARMENT, "")
    assert failed.value.reason == "OWNER_REQUIRED"
    assert house.origin.reads == []
    await house.get(GARMENT, "bob")
    assert (await house.get(GARMENT, "")).tier == "memory"
    await house.settle()
    await house.restart()
    assert (await house.get(GARMENT, "")).tier == "disk"


async def test_a_hanging_origin_ends_with_the_fills_deadline(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(fill_deadline_s=0.01)
    house.upload(PERSON, 1)
    house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    with pytest.raises(OriginUnavailable) as failed:
        await house.get(PERSON)
    assert failed.value.reason == "FILL_DEADLINE"
    assert failed.value.object_keys == (house.object_keys(PERSON)[0],)
    # The read that hung keeps neither a slot nor a read: the next fill can use both.
    house.engine.limits = replace(house.limits, fill_deadline_s=30.0)
    assert await house.version(PERSON) == 1


async def test_the_deadline_covers_the_time_in_the_queue(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(max_concurrent_fills=1)
    bob = EntryKey("human_upper_body", "bob")
    house.upload(PERSON, 1)
    house.upload(bob, 1)
    stop = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    slow = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    house.engine.limits = replace(house.limits, fill_deadline_s=0.01)
    with pytest.raises(HostBusy) as failed:
        await house.get(bob)
    assert failed.value.reason == "FILLS_BUSY"
    assert house.sets_read(bob) == 0
    stop.release()
    assert await slow == 1


async def test_an_entry_larger_than_the_limit_is_refused(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(max_entry_bytes=20)
    house.upload(PERSON, 1)
    with pytest.raises(Overloaded) as failed:
        await house.get(PERSON)
    assert failed.value.reason == "ENTRY_TOO_LARGE"


async def test_the_first_failing_member_ends_the_reads_of_the_others(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    keys = house.object_keys(PERSON)
    stop = house.gates.stop(f"origin {keys[0]}")
    del house.origin.objects[keys[1]]
    with pytest.raises(NoSuchObject):
        await house.get(PERSON)
    stop.release()
    assert len(house.engine.flights) == 0
