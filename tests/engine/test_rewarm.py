"""Which entries are in L1 after a restart, before any call has come? Promises 1, 5 and 6."""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import key_scope
from cachesvc.engine.rewarm import Rewarmer
from tests.engine.test_revalidation import damage
from tests.support.engine.house import EngineHouse

MAX_PEOPLE = 10


def person(index: int) -> EntryKey:
    return EntryKey("human_upper_body", f"u{index}")


async def used_in_order(house: EngineHouse, count: int) -> None:
    """Put `count` people into L2, the last one used last. Then restart."""
    for index in range(count):
        house.upload(person(index), 1)
        await house.get(person(index))
        await house.settle()
        house.clock.advance(1)
    await house.cache.upkeep.disk_step()
    await house.restart()
    house.origin.reads.clear()


def rewarmer(house: EngineHouse) -> Rewarmer:
    return Rewarmer(house.engine, house.cache._getter)


def in_memory(house: EngineHouse) -> set[str]:
    return {entry.meta.key.id for entry in house.memory.index}


async def test_what_was_used_last_is_in_l1_without_a_get_and_nothing_beyond_its_limits(
    house: EngineHouse,
) -> None:
    await used_in_order(house, MAX_PEOPLE + 3)
    assert await rewarmer(house).run() == MAX_PEOPLE
    assert in_memory(house) == {f"u{index}" for index in range(3, MAX_PEOPLE + 3)}
    assert house.origin.reads == []
    assert (await house.get(person(5))).tier == "memory"


async def test_it_stays_within_l1s_bytes(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open()
    await used_in_order(house, 5)
    size_bytes = house.files()[0].stat().st_size
    house.memory_max_bytes = 2 * size_bytes + size_bytes // 2
    await house.restart()
    assert await rewarmer(house).run() == 2
    assert in_memory(house) == {"u3", "u4"}


async def test_it_evicts_nothing_that_is_already_there(house: EngineHouse) -> None:
    await used_in_order(house, MAX_PEOPLE)
    newcomers = [person(100 + index) for index in range(MAX_PEOPLE)]
    for key in newcomers:
        house.upload(key, 2)
        await house.get(key)
    await house.settle()
    assert await rewarmer(house).run() == 0
    assert in_memory(house) == {key.id for key in newcomers}


async def test_it_counts_no_request_and_no_use(house: EngineHouse) -> None:
    await used_in_order(house, 1)
    before = (await house.cache.inspect(person(0))).disk
    assert await rewarmer(house).run() == 1
    await house.cache.upkeep.disk_step()
    after = await house.cache.inspect(person(0))
    assert after.disk == before
    assert after.memory is not None
    assert before is not None
    assert after.memory.accesses == before.accesses
    for tier in ("local", "memory", "disk", "origin"):
        assert house.metrics.value("requests", tier=tier) == 0


async def test_it_waits_while_a_flight_is_under_way(house: EngineHouse) -> None:
    await used_in_order(house, 2)
    live = person(50)
    house.upload(live, 1)
    stop = house.gates.stop(f"origin {house.object_keys(live)[0]}")
    getting = asyncio.create_task(house.version(live))
    await stop.reached()
    rewarming = asyncio.create_task(rewarmer(house).run())
    # The rewarmer asks L2 first; an Inspect behind it has passed the same reader threads.
    for _ in range(5):
        await house.cache.inspect(person(0))
    assert in_memory(house) == set()
    assert not rewarming.done()
    stop.release()
    assert await getting == 1
    assert await rewarming == 2
    assert in_memory(house) == {"u0", "u1", "u50"}


async def test_a_key_that_is_removed_meanwhile_is_not_brought_back(house: EngineHouse) -> None:
    await used_in_order(house, 2)
    stop = house.gates.stop("l2_read")
    rewarming = asyncio.create_task(rewarmer(house).run())
    await stop.reached()  # the read of the first entry, which was used last
    await house.cache.invalidate(key_scope(person(1)))
    await house.cache.invalidate(key_scope(person(0)))
    stop.release()
    assert await rewarming == 0
    assert in_memory(house) == set()
    assert house.origin.reads == []


@pytest.mark.parametrize("loss", ["damaged", "gone"])
async def test_what_is_lost_is_forgotten_and_the_origin_is_not_asked(
    house: EngineHouse, loss: str
) -> None:
    await used_in_order(house, 2)
    (file,) = (path for path in house.files() if "u1" in path.parts)
    if loss == "damaged":
        damage(file)
    else:
        file.unlink()
    assert await rewarmer(house).run() == 1
    assert in_memory(house) == {"u0"}
    assert (await house.cache.inspect(person(1))).disk is None
    assert house.origin.reads == []
    assert house.metrics.value("damaged_entries") == (loss == "damaged")
    quarantined = [path for path in (house.root / ".quarantine").rglob("*") if path.is_file()]
    assert len(quarantined) == (loss == "damaged")


async def test_a_call_that_joins_may_still_ask_the_origin(house: EngineHouse) -> None:
    key = EntryKey("garment", "shirt")
    house.upload(key, 1, "bob")
    await house.get(key, "bob")
    await house.settle()
    await house.restart()
    damage(house.files()[0])
    stop = house.gates.stop("l2_looked_up")
    rewarming = asyncio.create_task(rewarmer(house).run())
    await stop.reached()
    joining = asyncio.create_task(house.version(key, ""))
    await asyncio.sleep(0)
    stop.release()
    assert await joining == 1
    assert await rewarming == 1


async def test_what_has_expired_is_left_where_it_is(house: EngineHouse) -> None:
    await used_in_order(house, 1)
    house.clock.advance(25 * 3600)
    assert await rewarmer(house).run() == 0
    assert len(house.files()) == 1


async def test_what_l1_has_by_then_is_left_alone(house: EngineHouse) -> None:
    await used_in_order(house, 1)
    await house.get(person(0))
    assert await rewarmer(house).run() == 0
    house.memory.remove(person(0), Leaving.BYTES_LIMIT)
    assert await rewarmer(house).run() == 1
