"""Does a hit, or the caller of a fill, wait for what its answer does not need? Promise 8."""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.keys import EntryKey
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")


async def test_a_hit_in_memory_is_answered_without_a_pause(house: EngineHouse) -> None:
    """The Get never gives up the loop, so neither a disk nor a queue can delay it."""
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    getting = house.get(PERSON)
    with pytest.raises(StopIteration) as answered:
        getting.send(None)
    assert answered.value.value.tier == "memory"


async def test_a_fill_is_answered_while_its_commit_is_held_up(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    committing = house.gates.stop("l2_write")
    getting = asyncio.create_task(house.version(PERSON))
    await committing.reached()
    for _ in range(100):
        await asyncio.sleep(0)
    assert getting.done()
    assert await getting == 1
