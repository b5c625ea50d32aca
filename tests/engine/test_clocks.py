"""What does the cache do when the host's clock is set, by a year or a minute, either way?

Promises 1 and 5. Ages are counted in steady time; wall time is only compared with times from
outside. Steady time cannot hide a step that comes with a restart.
"""

from __future__ import annotations

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import Aborted
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import key_scope
from cachesvc.core.ttl import jitter_factor
from cachesvc.core.verdict import MAX_CLOCK_ERROR_NS
from tests.support.engine.entries import version_of
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
YEAR_S = 365 * 24 * 3600.0
STEPS = pytest.mark.parametrize(
    "step_s", [-YEAR_S, -30.0, 30.0, YEAR_S], ids=lambda s: f"{s:+.0f}s"
)


async def filled(house: EngineHouse) -> None:
    """Put version 1 into both tiers."""
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()


@STEPS
@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("when", ["before the fill", "before it", "after it"])
async def test_an_invalidation_is_final_whatever_the_clock_did(
    house: EngineHouse, when: str, restarts: bool, step_s: float
) -> None:
    if when == "before the fill":
        house.clock.step_wall(step_s)
    await filled(house)
    if when == "before it":
        house.clock.step_wall(step_s)
    await house.cache.invalidate(key_scope(PERSON))
    if when == "after it":
        house.clock.step_wall(step_s)
    house.upload(PERSON, 2)
    if restarts:
        await house.restart()
    assert await house.version(PERSON) == 2
    await house.settle()
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2


@STEPS
@pytest.mark.parametrize("tier", ["memory", "disk"])
async def test_a_ttl_ends_at_its_moment_when_the_clock_is_set_meanwhile(
    house: EngineHouse, tier: str, step_s: float
) -> None:
    await filled(house)
    row = await house.disk.lookup(PERSON)
    assert row is not None
    ttl_s = house.kinds.of(PERSON.namespace).ttl_s * jitter_factor(row.meta.generation)
    house.upload(PERSON, 2)
    house.clock.advance(ttl_s / 2)
    house.clock.step_wall(step_s)
    house.clock.advance(ttl_s / 2 - 0.001)
    if tier == "disk":
        house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert (await house.get(PERSON)).tier == tier
    house.clock.advance(0.002)
    assert await house.version(PERSON) == 2


@STEPS
async def test_over_a_restart_a_ttl_is_at_most_prolonged_by_what_a_clock_may_be_corrected_by(
    house: EngineHouse, step_s: float
) -> None:
    await filled(house)
    ttl_s = house.kinds.of(PERSON.namespace).ttl_s
    house.upload(PERSON, 2)
    house.clock.step_wall(step_s)
    await house.restart()
    house.clock.advance(ttl_s + MAX_CLOCK_ERROR_NS / NS_PER_S)
    assert await house.version(PERSON) == 2


@pytest.mark.parametrize("step_s", [-YEAR_S, -3600.0])
async def test_what_was_stored_before_the_clock_went_back_is_dropped_and_filled_again(
    house: EngineHouse, step_s: float
) -> None:
    await filled(house)
    house.upload(PERSON, 2)
    house.clock.step_wall(step_s)
    await house.restart()
    assert await house.version(PERSON) == 2
    await house.settle()
    row = await house.disk.lookup(PERSON)
    assert row is not None
    now_ns = house.clock.read().steady_ns
    assert row.meta.confirmed_ns <= now_ns
    assert row.last_access_ns <= now_ns
    assert len(house.files()) == 1


@STEPS
async def test_a_put_without_as_of_is_as_new_as_its_call(house: EngineHouse, step_s: float) -> None:
    await house.cache.invalidate(key_scope(PERSON))
    house.clock.step_wall(step_s)
    assert version_of((await house.put(PERSON, 3)).blob.view()) == 3
    assert await house.version(PERSON) == 3


async def test_an_as_of_from_before_the_recorded_change_is_refused_after_the_clock_went_back(
    house: EngineHouse,
) -> None:
    await house.cache.invalidate(key_scope(PERSON))
    house.clock.step_wall(-3600)
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=house.clock.read().wall_ns)
    assert failed.value.reason == "PUT_OUTDATED"


@STEPS
@pytest.mark.parametrize("restarts", [False, True], ids=["running", "booted meanwhile"])
async def test_upkeep_forgets_no_change_while_the_clock_is_wrong(
    house: EngineHouse, restarts: bool, step_s: float
) -> None:
    await filled(house)
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(60)
    await house.cache.invalidate(key_scope(PERSON))
    house.clock.step_wall(step_s)
    if restarts:
        await house.restart()
    await house.cache.upkeep.disk_step()
    house.clock.advance(5)
    await house.cache.upkeep.disk_step()
    house.clock.step_wall(-step_s)
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=read_at_ns)
    assert failed.value.reason == "PUT_OUTDATED"


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_change_is_forgotten_when_its_30_days_have_passed(
    house: EngineHouse, restarts: bool
) -> None:
    await filled(house)
    await house.cache.invalidate(key_scope(PERSON))
    if restarts:
        await house.restart()
    await house.cache.upkeep.disk_step()
    changed_ns = house.clock.read().wall_ns
    house.clock.advance(30 * 24 * 3600)
    await house.cache.upkeep.disk_step()
    assert house.catalog.last_change_ns([key_scope(PERSON)]) == changed_ns
    house.clock.advance(1)
    await house.cache.upkeep.disk_step()
    assert house.catalog.last_change_ns([key_scope(PERSON)]) == 0


async def test_an_as_of_from_the_future_counts_as_the_arrival_of_its_put(
    house: EngineHouse,
) -> None:
    ahead_ns = house.clock.read().wall_ns + int(YEAR_S) * NS_PER_S
    await house.put(PERSON, 1, as_of_ns=ahead_ns)
    house.clock.advance(1)
    await house.put(PERSON, 2, as_of_ns=house.clock.read().wall_ns)
    assert await house.version(PERSON) == 2


async def test_a_change_from_the_future_counts_as_the_arrival_of_its_invalidation(
    house: EngineHouse,
) -> None:
    ahead_ns = house.clock.read().wall_ns + int(YEAR_S) * NS_PER_S
    await house.cache.invalidate(key_scope(PERSON), ahead_ns)
    house.clock.advance(1)
    await house.put(PERSON, 2, as_of_ns=house.clock.read().wall_ns)
    assert await house.version(PERSON) == 2


@pytest.mark.parametrize("ahead_s", [3600.0, YEAR_S])
async def test_objects_from_the_future_are_cached_and_expire_as_others_do(
    house: EngineHouse, ahead_s: float
) -> None:
    now_s = house.clock.read().wall_ns / NS_PER_S
    house.upload(PERSON, 1, last_modified_s=now_s + ahead_s)
    asked_ns = house.clock.read().wall_ns
    assert await house.version(PERSON, origin_after_ns=asked_ns) == 1
    assert (await house.get(PERSON, origin_after_ns=asked_ns)).tier == "memory"
    await house.settle()
    house.upload(PERSON, 2)
    house.clock.advance(house.kinds.of(PERSON.namespace).ttl_s)
    assert await house.version(PERSON) == 2
