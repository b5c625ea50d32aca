"""Does a warm-up stay within its bounds, watched or not, and does a drain end it? Promise 5."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from cachesvc.core.errors import Draining, InvalidRequest, Overloaded
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, Kinds
from tests.support.engine.house import EngineHouse

PEOPLE = [EntryKey("human_upper_body", f"user{number}") for number in range(8)]


async def test_half_of_the_namespace_goes_to_l1_and_the_rest_to_l2(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.kinds = Kinds(tuple(replace(kind, max_entries=6) for kind in BUILT_IN))
    house.open()
    for key in PEOPLE:
        house.upload(key, 1)
    steps = [step async for step in house.cache.warm([house.request(key) for key in PEOPLE])]
    await house.settle()
    assert [step.done for step in steps] == list(range(9))
    assert {step.total for step in steps} == {8}
    inspected = [await house.cache.inspect(key) for key in PEOPLE]
    assert [found.memory is not None for found in inspected] == [True] * 3 + [False] * 5
    assert all(found.disk is not None for found in inspected)


async def test_it_names_what_failed_and_why(house: EngineHouse) -> None:
    house.upload(PEOPLE[0], 1)
    requests = [house.request(key) for key in PEOPLE[:2]]
    failed = [step.failed async for step in house.cache.warm(requests) if step.failed]
    assert failed == [(PEOPLE[1], "NO_SUCH_OBJECT")]


async def test_it_goes_on_when_the_watcher_leaves(house: EngineHouse) -> None:
    for key in PEOPLE[:4]:
        house.upload(key, 1)
    stop = house.gates.stop(f"origin {house.object_keys(PEOPLE[0])[0]}")
    progress = house.cache.warm([house.request(key) for key in PEOPLE[:4]])
    assert (await anext(progress)).done == 0
    await stop.reached()
    await progress.aclose()  # type: ignore[attr-defined]
    stop.release()
    await house.settle()
    for key in PEOPLE[:4]:
        assert (await house.get(key)).tier == "memory"


async def test_too_many_keys_and_too_many_warmups_are_refused(closed_house: EngineHouse) -> None:
    house = closed_house
    house.open(max_warm_keys=2, max_concurrent_warmups=1)
    requests = [house.request(key) for key in PEOPLE]
    with pytest.raises(InvalidRequest) as failed:
        house.cache.warm(requests)
    assert failed.value.reason == "TOO_MANY_KEYS"
    stop = house.gates.stop(f"origin {house.object_keys(PEOPLE[0])[0]}")
    running = house.cache.warm(requests[:1])
    await stop.reached()
    with pytest.raises(Overloaded) as overloaded:
        house.cache.warm(requests[1:2])
    assert overloaded.value.reason == "TOO_MANY_WARMUPS"
    stop.release()
    assert [step.done async for step in running] == [0, 1]
    await house.settle()
    assert [step.done async for step in house.cache.warm(requests[1:2])] == [0, 1]


async def test_a_get_that_joins_a_warmups_fill_is_answered_with_it(house: EngineHouse) -> None:
    house.upload(PEOPLE[0], 1)
    stop = house.gates.stop(f"origin {house.object_keys(PEOPLE[0])[0]}")
    progress = house.cache.warm([house.request(PEOPLE[0])])
    await stop.reached()
    getting = asyncio.create_task(house.version(PEOPLE[0]))
    await asyncio.sleep(0)
    stop.release()
    assert await getting == 1
    assert [step.done async for step in progress] == [0, 1]
    assert house.sets_read(PEOPLE[0]) == 1


async def test_a_drain_lets_the_commit_behind_an_answer_finish(house: EngineHouse) -> None:
    house.upload(PEOPLE[0], 1)
    stop = house.gates.stop("l2_write")
    await house.get(PEOPLE[0])
    await stop.reached()
    draining = asyncio.create_task(house.cache.drain(20))
    await asyncio.sleep(0)
    stop.release()
    await draining
    await house.restart()
    assert (await house.get(PEOPLE[0])).tier == "disk"


async def test_a_drain_keeps_the_uses_that_were_not_flushed_yet(house: EngineHouse) -> None:
    house.upload(PEOPLE[0], 1)
    for _ in range(12):
        await house.get(PEOPLE[0])
    await house.cache.drain(20)
    await house.restart()
    row = await house.disk.lookup(PEOPLE[0])
    assert row is not None
    assert row.accesses == 12


async def test_a_drain_ends_at_its_deadline_and_tells_the_waiters(house: EngineHouse) -> None:
    house.upload(PEOPLE[0], 1)
    stop = house.gates.stop(f"origin {house.object_keys(PEOPLE[0])[0]}")
    getting = asyncio.create_task(house.get(PEOPLE[0]))
    await stop.reached()
    await house.cache.drain(0.01)
    with pytest.raises(Draining):
        await getting
    assert house.engine.tasks == set()
