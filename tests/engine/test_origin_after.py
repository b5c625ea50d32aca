"""Is an entry, or a member of one, from before the named `origin_after` never served?

Promises 1 and 3.
"""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import NoSuchObject
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from tests.support.engine.entries import member_of
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")


async def assert_outdated(house: EngineHouse, origin_after_ns: int) -> None:
    with pytest.raises(NoSuchObject) as failed:
        await house.get(PERSON, origin_after_ns=origin_after_ns)
    assert failed.value.reason == "ORIGIN_OUTDATED"


@pytest.mark.parametrize("tier", ["memory", "disk"])
async def test_a_cached_entry_that_is_older_is_filled_anew(house: EngineHouse, tier: str) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    if tier == "disk":
        await house.restart()
    house.clock.advance(10)
    house.upload(PERSON, 2)
    changed_ns = house.clock.read().wall_ns
    house.clock.advance(10)
    assert await house.version(PERSON, origin_after_ns=changed_ns) == 2
    assert (await house.get(PERSON, origin_after_ns=changed_ns)).tier == "memory"
    await house.settle()
    await house.restart()
    assert await house.version(PERSON, origin_after_ns=changed_ns) == 2


async def test_an_older_origin_is_outdated_and_nothing_of_it_is_published(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    house.clock.advance(60)
    await assert_outdated(house, house.clock.read().wall_ns)
    await house.settle()
    inspected = await house.cache.inspect(PERSON)
    assert inspected.memory is None
    assert inspected.disk is None
    assert house.files() == []


async def test_half_of_an_upload_is_refused(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    house.clock.advance(60)
    changed_ns = house.clock.read().wall_ns
    fields = house.kinds.of(PERSON.namespace).fields
    keys = house.object_keys(PERSON)
    for field, object_key in list(zip(fields, keys, strict=True))[:-1]:
        house.origin.hold(object_key, member_of(field, 2))
    await assert_outdated(house, changed_ns)
    house.origin.hold(keys[-1], member_of(fields[-1], 2))
    assert await house.version(PERSON, origin_after_ns=changed_ns) == 2


async def test_the_grace_of_whole_seconds_is_given_and_not_more(house: EngineHouse) -> None:
    modified_ns = house.clock.read().wall_ns // NS_PER_S * NS_PER_S
    house.upload(PERSON, 1, last_modified_s=modified_ns / NS_PER_S)
    house.clock.advance(60)
    assert await house.version(PERSON, origin_after_ns=modified_ns + 2 * NS_PER_S) == 1
    await assert_outdated(house, modified_ns + 2 * NS_PER_S + 1)


async def test_a_moment_in_the_future_counts_as_the_arrival(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    far_ns = house.clock.read().wall_ns + 3600 * NS_PER_S
    assert await house.version(PERSON, origin_after_ns=far_ns) == 1
    house.clock.advance(60)
    await assert_outdated(house, far_ns)


async def test_a_call_without_a_moment_is_served_what_is_cached(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    house.clock.advance(60)
    await assert_outdated(house, house.clock.read().wall_ns)
    assert (await house.get(PERSON)).tier == "memory"


async def test_joining_a_flight_that_is_too_old_starts_the_next_one(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    first = asyncio.create_task(house.version(PERSON))
    await stop.reached()
    house.clock.advance(60)
    house.upload(PERSON, 2)
    changed_ns = house.clock.read().wall_ns
    second = asyncio.create_task(house.version(PERSON, origin_after_ns=changed_ns))
    await asyncio.sleep(0)
    stop.release()
    assert await second == 2
    assert await first == 1
    assert house.sets_read(PERSON) == 2
    await house.settle()
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2


async def test_a_landed_flight_that_is_too_old_is_not_joined(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop("l2_write")
    assert await house.version(PERSON) == 1
    await stop.reached()
    house.clock.advance(60)
    house.upload(PERSON, 2)
    assert await house.version(PERSON, origin_after_ns=house.clock.read().wall_ns) == 2
    stop.release()
    await house.settle()
    # The older flight's commit came last; its row must not have replaced the newer one.
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_a_put_meets_the_moment_at_which_its_source_was_read(house: EngineHouse) -> None:
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(60)
    await house.put(PERSON, 1, as_of_ns=read_at_ns)
    assert (await house.get(PERSON, origin_after_ns=read_at_ns)).tier == "memory"
    house.upload(PERSON, 2)
    assert await house.version(PERSON, origin_after_ns=read_at_ns + 3 * NS_PER_S) == 2


async def test_a_crash_does_not_bring_back_the_bytes_of_an_older_fill_that_was_still_committing(
    house: EngineHouse,
) -> None:
    """Promise 1.

    A: fills 1, answers, commits | B: finds no row yet, reads 2 | A: its row is committed
    B: answers 2 | crash before B's own commit
    """
    committing = house.gates.stop("l2_written")
    house.upload(PERSON, 1)
    assert await house.version(PERSON) == 1
    await committing.reached()
    house.clock.advance(60)
    house.upload(PERSON, 2)
    changed_ns = house.clock.read().wall_ns
    reading = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    newer = asyncio.create_task(house.version(PERSON, origin_after_ns=changed_ns))
    await reading.reached()
    committing.release()
    while await house.disk.lookup(PERSON) is None:
        await asyncio.sleep(0)
    house.gates.stop("l2_write")
    reading.release()
    assert await newer == 2
    await house.restart()
    assert await house.version(PERSON) == 2
