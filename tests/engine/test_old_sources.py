"""What is a Put told whose source is too old, and does a dry run say the same?

Promise 1: a source is stored only if every change since it was read is known.
"""

from __future__ import annotations

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import Aborted, InvalidRequest, SourceTooOld
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.engine.state import CATALOG_WAS_LOST, WAS_KILLED
from tests.support.engine.entries import blob_of
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
HOUR_NS = 3600 * NS_PER_S
EVERYTHING = Scope(ScopeKind.EVERYTHING)


async def refusal_of(house: EngineHouse, as_of_ns: int) -> Aborted:
    """Return the error of a Put, after a dry run had the same error."""
    with pytest.raises(Aborted) as foretold:
        await check(house, as_of_ns)
    with pytest.raises(Aborted) as refused:
        await house.put(PERSON, 1, as_of_ns=as_of_ns)
    assert refused.value.reason == foretold.value.reason == "PUT_OUTDATED"
    assert type(refused.value) is type(foretold.value)
    assert refused.value.message == foretold.value.message
    return refused.value


async def check(house: EngineHouse, as_of_ns: int) -> bool:
    async with house.receive(PERSON, as_of_ns=as_of_ns) as upload:
        upload.append(blob_of(house.kinds.of(PERSON.namespace), 1))
        return await house.cache.check_put(upload)


async def test_a_key_that_never_changed_is_told_what_made_its_source_too_old(
    house: EngineHouse,
) -> None:
    now_ns = house.clock.read().wall_ns
    house.engine.know_changes_from(now_ns, WAS_KILLED)
    refused = await refusal_of(house, now_ns - HOUR_NS)
    assert isinstance(refused, SourceTooOld)
    assert refused.sources_from_ns == now_ns
    assert WAS_KILLED in refused.message
    assert "last change of this entry" not in refused.message
    # In the next life the catalog alone knows the moment, and no longer the cause.
    await house.cache.drain(deadline_s=5.0)
    await house.restart()
    refused = await refusal_of(house, now_ns - HOUR_NS)
    assert isinstance(refused, SourceTooOld)
    assert refused.sources_from_ns == now_ns
    assert "everything was invalidated then, or changes were lost" in refused.message


async def test_a_key_that_changed_is_told_that_it_changed(house: EngineHouse) -> None:
    now_ns = house.clock.read().wall_ns
    await house.cache.invalidate(key_scope(PERSON))
    refused = await refusal_of(house, now_ns - HOUR_NS)
    assert not isinstance(refused, SourceTooOld)
    assert "last change of this entry" in refused.message


async def test_what_is_older_than_the_memory_of_changes_is_told_so(house: EngineHouse) -> None:
    refused = await refusal_of(house, house.clock.read().wall_ns - 30 * 24 * HOUR_NS)
    assert "29 days" in refused.message


async def test_a_dry_run_stores_nothing_and_hides_nothing(house: EngineHouse) -> None:
    house.upload(PERSON, 7)
    assert await house.version(PERSON) == 7
    await house.settle()
    assert await check(house, house.clock.read().wall_ns)
    assert await house.version(PERSON) == 7
    assert house.metrics.value("puts") == 0
    async with house.receive(PERSON) as upload:
        upload.append(b"no blob")
        with pytest.raises(InvalidRequest):
            await house.cache.check_put(upload)


async def test_a_stop_right_after_a_start_that_lost_changes_leaves_a_trace_of_it(
    house: EngineHouse,
) -> None:
    """Otherwise the next daemon believes the clean end, and stores a source from before."""
    now_ns = house.clock.read().wall_ns
    house.engine.know_changes_from(now_ns, WAS_KILLED)
    await house.cache.drain(deadline_s=5.0)
    await house.restart()
    assert await house.disk.last_change_ns((EVERYTHING,)) == now_ns
    assert house.catalog.ended_cleanly


async def test_a_stop_after_the_catalog_was_lost_leaves_a_trace_of_it(house: EngineHouse) -> None:
    await house.cache.upkeep.disk_step()
    now_ns = house.clock.read().wall_ns
    house.cache.catalog_lost()
    assert house.engine.unknown_because == CATALOG_WAS_LOST
    await house.cache.drain(deadline_s=5.0)
    await house.restart()
    assert await house.disk.last_change_ns((EVERYTHING,)) == now_ns
