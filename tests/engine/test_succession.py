"""Does an acknowledgement wait for as long as workers may still trust the last daemon? Promise 1.

tests/core/test_succession.py says how long that is; tests/local/test_daemon_ends.py has real
daemons.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import key_scope
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")


async def _put(house: EngineHouse) -> None:
    await house.put(PERSON, 2)


async def _invalidate(house: EngineHouse) -> None:
    await house.cache.invalidate(key_scope(PERSON))


@pytest.mark.parametrize("change", [_put, _invalidate], ids=["put", "invalidate"])
async def test_nothing_is_acknowledged_before_the_succession_is_over(
    house: EngineHouse, change: Callable[[EngineHouse], Awaitable[None]]
) -> None:
    await house.put(PERSON, 1)
    before = house.catalog.lookup(PERSON)
    house.engine.acknowledge_from_ns = house.clock.read().steady_ns + 3600 * NS_PER_S
    changing = asyncio.ensure_future(change(house))
    while house.catalog.lookup(PERSON) == before or house.engine.tombstones:
        await asyncio.sleep(0)
    # The replaced file is unlinked before the answer.
    while len(house.files()) != (house.catalog.lookup(PERSON) is not None):
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not changing.done()
    changing.cancel()
    await asyncio.gather(changing, return_exceptions=True)
