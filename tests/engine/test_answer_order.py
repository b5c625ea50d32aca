"""Is everything that an answer promises durable, or out of reach, before the answer is given?

Promise 1. The tests hold up the catalog's writer, so that a step that does not wait for it shows.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cachesvc.core.entry import Row
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import key_scope
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
# More turns of the loop than any answer needs that waits for nothing.
TURNS = 100


@asynccontextmanager
async def held_writer(house: EngineHouse) -> AsyncIterator[None]:
    """Hold up the catalog's writer: it commits nothing that is queued from now on."""
    is_held, may_go = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        is_held.set()
        may_go.wait(20)

    house.catalog._writes.put(hold)
    await asyncio.to_thread(is_held.wait)
    try:
        yield
    finally:
        may_go.set()


async def turn(times: int = TURNS) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def until_queued(house: EngineHouse) -> None:
    while not house.catalog.queue_depth:
        await asyncio.sleep(0)


async def test_an_invalidation_answers_after_its_commit(house: EngineHouse) -> None:
    await house.put(PERSON, 1)
    at_answer: list[Row | None] = []
    async with held_writer(house):
        invalidating = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
        invalidating.add_done_callback(lambda _: at_answer.append(house.catalog.lookup(PERSON)))
        await until_queued(house)
        await turn()
    await invalidating
    await turn()
    assert at_answer == [None]


async def test_a_put_answers_after_its_row_is_committed(house: EngineHouse) -> None:
    await house.put(PERSON, 1)
    at_answer: list[Row | None] = []
    async with held_writer(house):
        putting = asyncio.create_task(house.put(PERSON, 2))
        putting.add_done_callback(lambda _: at_answer.append(house.catalog.lookup(PERSON)))
        await until_queued(house)
        await turn()
    served = await putting
    await turn()
    assert [row and row.meta.generation for row in at_answer] == [served.meta.generation]


async def test_l2_is_a_miss_while_an_invalidation_is_being_committed(house: EngineHouse) -> None:
    # A: unlinks L1's file | B: Get, L2 still has the row | A: its DELETE commits, it answers
    await house.put(PERSON, 1)
    house.upload(PERSON, 2)
    async with held_writer(house):
        invalidating = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
        await until_queued(house)
        assert house.catalog.lookup(PERSON) is not None
        assert await house.version(PERSON) == 2
    await invalidating
    assert await house.version(PERSON) == 2


@pytest.mark.parametrize("point", ["l2_write", "l2_written"])
async def test_a_fill_that_an_invalidation_overtook_stores_no_row(
    house: EngineHouse, point: str
) -> None:
    # A: answers, writes its file | B: invalidates, answers | A: queues its row -> dropped
    house.upload(PERSON, 1)
    storing = house.gates.stop(point)
    await house.get(PERSON)
    await storing.reached()
    await house.cache.invalidate(key_scope(PERSON))
    storing.release()
    await house.settle()
    assert house.catalog.lookup(PERSON) is None
    assert house.files() == []


async def test_a_flight_that_nobody_can_join_any_more_is_fenced_all_the_same(
    house: EngineHouse,
) -> None:
    # A: lands, writes its file | B: needs newer bytes, so A's flight is detached
    house.upload(PERSON, 1)
    at_the_origin = f"origin {house.object_keys(PERSON)[0]}"
    writing = house.gates.stop("l2_write")
    assert await house.version(PERSON) == 1
    await writing.reached()
    [older] = [task for task in house.engine.tasks if task.get_name() == "flight"]
    house.clock.advance(10)
    reading = house.gates.stop(at_the_origin)
    needed_ns = house.clock.read().wall_ns
    newer = asyncio.create_task(house.version(PERSON, origin_after_ns=needed_ns))
    await reading.reached()
    house.upload(PERSON, 2)
    again = house.gates.stop(at_the_origin)
    await house.cache.invalidate(key_scope(PERSON))
    await again.reached()
    writing.release()
    await asyncio.wait([older])
    assert house.catalog.lookup(PERSON) is None
    reading.release()
    again.release()
    assert await newer == 2
