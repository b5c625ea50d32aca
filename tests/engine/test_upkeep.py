"""Do the other parts of the upkeep still run when one part fails?"""

from __future__ import annotations

from cachesvc.core.entry import MAX_ACCESSES
from cachesvc.core.keys import EntryKey
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
OTHER = EntryKey("human_upper_body", "bob")
FIVE_DAYS_S = 5 * 24 * 3600.0


async def note_a_use_that_no_catalog_holds(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    served = await house.get(PERSON)
    await house.settle()
    house.engine.uses.note(served.meta, MAX_ACCESSES + 1, house.clock.read().steady_ns)


async def test_what_expired_leaves_the_disk_though_the_uses_cannot_be_written(
    house: EngineHouse,
) -> None:
    """Promise 5."""
    house.upload(OTHER, 1)
    await house.get(OTHER)
    await house.settle()
    house.clock.advance(FIVE_DAYS_S)
    await note_a_use_that_no_catalog_holds(house)
    assert await house.disk.lookup(OTHER) is not None
    await house.cache.upkeep.disk_step()
    assert await house.disk.lookup(OTHER) is None


async def test_a_drain_ends_cleanly_though_the_uses_cannot_be_written(house: EngineHouse) -> None:
    await note_a_use_that_no_catalog_holds(house)
    await house.cache.drain(deadline_s=5.0)
    await house.restart()
    assert house.catalog.ended_cleanly
