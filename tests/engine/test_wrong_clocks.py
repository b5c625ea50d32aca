"""What remains of a wrong clock once it is right again, also over restarts?

Promises 1 and 6. An entry whose time lies in the future has no known age. It meets no
`origin_after`, refuses a Put only until the wrong time is noticed, and is never dropped by age.
`house.clock.step_wall` sets the clock; a restart begins with the time that it shows then.
"""

from __future__ import annotations

import asyncio

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import Aborted, NoSuchObject
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.core.watermarks import Watermarks
from cachesvc.edge import messages
from cachesvc.engine.rewarm import Rewarmer
from tests.support.engine.entries import blob_of
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
OTHER = EntryKey("human_upper_body", "bob")
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
YEAR_S = 365 * DAY_S
AHEAD = pytest.mark.parametrize("ahead_s", [HOUR_S, YEAR_S], ids=lambda s: f"{s:.0f}s")
RESTARTS = pytest.mark.parametrize("restarts", [0, 1], ids=lambda n: f"{n} restarts")


def wall_ns(house: EngineHouse) -> int:
    return house.clock.read().wall_ns


async def restart(house: EngineHouse, times: int) -> None:
    for _ in range(times):
        await house.restart()
        house.clock.advance(1)


async def filled(house: EngineHouse, *keys: EntryKey) -> None:
    """Put version 1 into both tiers."""
    for key in keys or (PERSON,):
        house.upload(key, 1)
        await house.get(key)
    await house.settle()


async def assert_outdated(house: EngineHouse, as_of_ns: int) -> None:
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 9, as_of_ns=as_of_ns)
    assert failed.value.reason == "PUT_OUTDATED"


# ---- origin_after


@AHEAD
@RESTARTS
@pytest.mark.parametrize("named", [True, False], ids=["as_of", "no as_of"])
async def test_what_was_put_while_the_clock_was_ahead_meets_no_origin_after(
    house: EngineHouse, ahead_s: float, restarts: int, named: bool
) -> None:
    house.clock.step_wall(ahead_s)
    await house.put(PERSON, 1, as_of_ns=wall_ns(house) if named else None)
    house.clock.step_wall(-ahead_s)
    house.clock.advance(10)
    house.upload(PERSON, 2)
    changed_ns = wall_ns(house)
    await restart(house, restarts)
    assert await house.version(PERSON, origin_after_ns=changed_ns) == 2


@AHEAD
async def test_what_was_put_ahead_is_of_unknown_age_also_when_its_time_has_come(
    house: EngineHouse, ahead_s: float
) -> None:
    """The clock reaches the time that the entry claims; the entry has been older all the while."""
    house.clock.step_wall(ahead_s)
    await house.put(PERSON, 1, ttl_s=2 * YEAR_S)
    house.clock.step_wall(-ahead_s)
    await house.cache.upkeep.disk_step()
    house.clock.advance(10)
    house.upload(PERSON, 2)
    changed_ns = wall_ns(house)
    house.clock.advance(ahead_s + 1)
    assert await house.version(PERSON) == 1
    await house.restart()
    assert await house.version(PERSON) == 1
    assert await house.version(PERSON, origin_after_ns=changed_ns) == 2


async def test_a_clock_that_is_behind_has_the_origin_asked_and_what_is_newer_served(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    uploaded_ns = wall_ns(house)
    house.clock.advance(60)
    await house.get(PERSON)
    await house.settle()
    house.clock.step_wall(-3 * DAY_S)
    await house.restart()
    # Both its time and the moment lie in the future: the origin decides whether it is the newest.
    house.origin.reads.clear()
    assert await house.version(PERSON, origin_after_ns=uploaded_ns) == 1
    assert len(house.origin.reads) == 4
    assert house.metrics.value("revalidations", outcome="unchanged") == 1


async def test_an_absence_from_later_than_now_answers_no_origin_after(
    house: EngineHouse,
) -> None:
    house.clock.step_wall(HOUR_S)
    with pytest.raises(Exception, match="no such"):
        await house.get(PERSON)
    house.clock.step_wall(-HOUR_S)
    house.upload(PERSON, 1)
    assert await house.version(PERSON, origin_after_ns=wall_ns(house)) == 1


# ---- Puts


@AHEAD
@RESTARTS
@pytest.mark.parametrize("what", ["invalidation", "Put", "Put without as_of", "of everything"])
async def test_a_change_from_later_than_now_refuses_puts_only_until_it_is_noticed(
    house: EngineHouse, ahead_s: float, restarts: int, what: str
) -> None:
    house.clock.step_wall(ahead_s)
    match what:
        case "invalidation":
            await house.cache.invalidate(key_scope(PERSON))
        case "of everything":
            await house.cache.invalidate(Scope(ScopeKind.EVERYTHING), wall_ns(house))
        case _:
            as_of_ns = None if what == "Put without as_of" else wall_ns(house)
            await house.put(PERSON, 1, as_of_ns=as_of_ns)
    house.clock.step_wall(-ahead_s)
    read_before_ns = wall_ns(house)
    house.clock.advance(10)
    await restart(house, restarts)
    await house.cache.upkeep.disk_step()
    house.clock.advance(1)
    await assert_outdated(house, read_before_ns)
    await house.put(PERSON, 2, as_of_ns=wall_ns(house))
    assert await house.version(PERSON) == 2
    assert house.catalog.last_change_ns([key_scope(PERSON)]) <= wall_ns(house)
    # The engine notes it once, durably, and not again at each start.
    read_ns = wall_ns(house)
    await restart(house, 1)
    await house.cache.upkeep.disk_step()
    await house.put(PERSON, 3, as_of_ns=read_ns)
    assert await house.version(PERSON) == 3


@AHEAD
async def test_a_put_notices_by_itself_what_is_later_than_now(
    house: EngineHouse, ahead_s: float
) -> None:
    house.clock.step_wall(ahead_s)
    await house.put(PERSON, 1, as_of_ns=wall_ns(house))
    house.clock.step_wall(-ahead_s)
    house.clock.advance(1)
    await assert_outdated(house, wall_ns(house))
    house.clock.advance(1)
    await house.put(PERSON, 2, as_of_ns=wall_ns(house))
    assert await house.version(PERSON) == 2


@pytest.mark.parametrize("restarts", [0, 1])
async def test_a_source_that_was_read_before_the_clock_went_back_and_was_invalidated_is_refused(
    house: EngineHouse, restarts: int
) -> None:
    await filled(house)
    read_ns = wall_ns(house)
    house.clock.step_wall(-HOUR_S)
    house.clock.advance(1)
    await restart(house, restarts)
    await house.cache.invalidate(key_scope(PERSON))
    house.clock.advance(1)
    await assert_outdated(house, read_ns)
    house.clock.advance(1)
    await house.put(PERSON, 2, as_of_ns=wall_ns(house))


@pytest.mark.parametrize("read_for_s", [0.0, 600.0], ids=lambda s: f"read {s:.0f}s before")
@pytest.mark.parametrize("steps_s", [(-HOUR_S,), (-120.0, -HOUR_S), (-HOUR_S, -2.0)])
async def test_a_put_that_arrived_before_the_clock_went_back_replaces_no_newer_put(
    house: EngineHouse, steps_s: tuple[float, ...], read_for_s: float
) -> None:
    """The newer Put's time is lowered with the clock; the older Put still has the time before."""
    first, *later = steps_s
    read_ns = wall_ns(house)
    house.clock.advance(read_for_s)
    if later:
        house.clock.step_wall(first)
    async with house.receive(PERSON, as_of_ns=read_ns) as older:
        older.append(blob_of(house.kinds.of(PERSON.namespace), 1))
        house.clock.advance(1)
        await house.put(PERSON, 2)
        for step_s in later or steps_s:
            house.clock.step_wall(step_s)
            await house.cache.upkeep.disk_step()
        house.clock.advance(1)
        with pytest.raises(Aborted) as failed:
            await house.cache.store_put(older)
    assert failed.value.reason == "PUT_OUTDATED"
    assert await house.version(PERSON) == 2


async def test_what_was_recorded_while_the_clock_was_behind_lets_no_older_source_pass(
    house: EngineHouse,
) -> None:
    read_ns = wall_ns(house)
    house.clock.advance(1)
    house.clock.step_wall(-HOUR_S)
    await house.cache.upkeep.memory_step()
    await house.cache.invalidate(key_scope(PERSON))
    house.clock.advance(120)
    house.clock.step_wall(HOUR_S)
    await assert_outdated(house, read_ns)
    await house.cache.upkeep.disk_step()
    await house.restart()
    await assert_outdated(house, read_ns)
    house.clock.advance(1)
    await house.put(PERSON, 2, as_of_ns=wall_ns(house))


@pytest.mark.parametrize("starts", [1, 2])
async def test_starts_with_a_clock_a_year_ahead_forget_no_change(
    house: EngineHouse, starts: int
) -> None:
    read_ns = wall_ns(house)
    house.clock.advance(1)
    await filled(house)
    await house.cache.invalidate(key_scope(PERSON))
    house.clock.step_wall(YEAR_S)
    for _ in range(starts):
        await house.restart()
        await house.cache.upkeep.disk_step()
        house.clock.advance(60)
        await house.cache.upkeep.disk_step()
    house.clock.step_wall(-YEAR_S)
    await house.restart()
    await assert_outdated(house, read_ns)
    await house.cache.upkeep.disk_step()
    await assert_outdated(house, read_ns)


# ---- what is stored


@pytest.mark.parametrize("off_s", [3 * DAY_S, YEAR_S, -3 * DAY_S, -YEAR_S], ids=lambda s: f"{s:+}")
async def test_a_start_with_a_wrong_clock_empties_nothing_and_confirms_at_the_origin(
    house: EngineHouse, off_s: float
) -> None:
    await filled(house, PERSON, OTHER)
    files = set(house.files())
    house.clock.step_wall(off_s)
    await house.restart()
    await house.cache.upkeep.disk_step()
    await Rewarmer(house.engine, house.cache._getter).run()
    house.clock.advance(10)
    await house.cache.upkeep.disk_step()
    assert set(house.files()) == files
    house.origin.unchanged = 0
    assert await house.version(PERSON) == 1
    assert house.origin.unchanged == 4
    assert house.metrics.value("fills") == 0
    assert (await house.get(PERSON)).tier == "memory"
    # The clock is right again: confirmed entries and untouched ones are both still there.
    await house.settle()
    house.clock.step_wall(-off_s)
    await house.restart()
    await house.cache.upkeep.disk_step()
    assert set(house.files()) == files
    for key in (PERSON, OTHER):
        assert await house.version(key) == 1
    assert house.metrics.value("fills") == 0


async def test_each_of_several_starts_with_a_wronger_clock_empties_nothing(
    house: EngineHouse,
) -> None:
    """The life between the two starts wrote to the catalog, so the wrong clock looks confirmed."""
    await filled(house, PERSON)
    for number in range(3):
        house.clock.step_wall(YEAR_S)
        await house.restart()
        await filled(house, EntryKey(PERSON.namespace, f"user{number}"))
        await house.cache.upkeep.disk_step()
    assert len(house.files()) == 4
    assert await house.version(PERSON) == 1
    assert house.metrics.value("fills") == 1


@pytest.mark.parametrize("off_s", [3 * DAY_S, -3 * DAY_S], ids=lambda s: f"{s:+}")
async def test_what_is_stored_while_the_clock_is_wrong_is_not_lost_in_the_next_life(
    house: EngineHouse, off_s: float
) -> None:
    await filled(house, OTHER)
    house.clock.step_wall(off_s)
    await house.restart()
    await filled(house, PERSON)
    house.clock.step_wall(-off_s)
    await house.restart()
    await house.cache.upkeep.disk_step()
    assert await house.version(PERSON) == 1
    assert house.metrics.value("fills") == 0


async def test_an_entry_leaves_by_its_age_once_that_has_passed_after_a_start_astray(
    house: EngineHouse,
) -> None:
    await filled(house)
    house.clock.step_wall(3 * DAY_S)
    await house.restart()
    await house.cache.upkeep.disk_step()
    house.clock.advance(20 * HOUR_S)
    await house.cache.upkeep.disk_step()
    assert len(house.files()) == 1
    house.clock.advance(5 * HOUR_S)
    await house.cache.upkeep.disk_step()
    assert house.files() == []


async def test_a_stop_of_some_hours_counts_for_an_entrys_age(house: EngineHouse) -> None:
    await filled(house)
    await house.end()
    house.clock.advance(20 * HOUR_S)
    house.open()
    await house.cache.upkeep.disk_step()
    assert len(house.files()) == 1
    house.clock.advance(5 * HOUR_S)
    await house.cache.upkeep.disk_step()
    assert house.files() == []


@pytest.mark.parametrize("off_s", [3 * DAY_S, YEAR_S], ids=lambda s: f"{s:+}")
async def test_what_was_used_while_the_clock_was_ahead_does_not_outlive_what_is_used_now(
    house: EngineHouse, off_s: float
) -> None:
    keys = [EntryKey(PERSON.namespace, f"user{number}") for number in range(4)]
    house.clock.step_wall(off_s)
    await house.restart()
    for key in keys:
        await filled(house, key)
        house.clock.advance(1)
    house.clock.step_wall(-off_s)
    block = 4096
    house.watermarks = Watermarks(3 * block, 4 * block, 4 * block)
    await house.restart()
    await house.cache.upkeep.disk_step()
    house.clock.advance(1)
    await filled(house, PERSON)
    rows = [row.meta.key for row in house.catalog.hottest(10)]
    assert rows[0] == PERSON
    assert keys[0] not in rows
    assert keys[3] in rows


async def test_a_crash_while_the_clock_was_ahead_leaves_no_file_that_no_sweep_takes(
    house: EngineHouse,
) -> None:
    house.clock.step_wall(YEAR_S)
    stop = house.gates.stop("l2_written")
    putting = asyncio.create_task(house.put(PERSON, 1))
    await stop.reached()
    (file,) = house.files()
    data = file.read_bytes()
    await house.end()
    await asyncio.gather(putting, return_exceptions=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    house.clock.step_wall(-YEAR_S)
    house.clock.restart()
    house.open()
    house.cache.start(rewarm=False)
    await asyncio.gather(*(t for t in house.cache._loops if t.get_name() == "litter-sweep"))
    assert house.files() == []
    await house.cache.drain(1)


@pytest.mark.parametrize("tier", ["memory", "disk"])
async def test_an_entry_that_is_put_ahead_is_served_to_who_names_no_moment(
    house: EngineHouse, tier: str
) -> None:
    house.clock.step_wall(YEAR_S)
    await house.put(PERSON, 1, as_of_ns=wall_ns(house))
    house.clock.step_wall(-YEAR_S)
    await house.cache.upkeep.memory_step()
    await house.cache.upkeep.disk_step()
    if tier == "disk":
        house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    served = await house.get(PERSON)
    assert served.tier == tier
    assert served.meta.as_of_ns == wall_ns(house)
    assert served.meta.origin_ns < NS_PER_S


# ---- the origin's times


@pytest.mark.parametrize("modified_s", [-1e12, -1.0, 0.0, 10_413_792_000.0, 1e12], ids=str)
async def test_an_object_of_any_time_is_cached_and_described(
    house: EngineHouse, modified_s: float
) -> None:
    house.upload(PERSON, 1, last_modified_s=modified_s)
    assert await house.version(PERSON) == 1
    await house.settle()
    await house.restart()
    served = await house.get(PERSON)
    assert served.tier == "disk"
    now = house.clock.read()
    assert messages.entry_info(served, now).origin_time.ToJsonString() >= "1970"
    asked_ns = wall_ns(house)
    if modified_s > 0:
        assert await house.version(PERSON, origin_after_ns=asked_ns) == 1
    else:
        with pytest.raises(NoSuchObject) as failed:
            await house.get(PERSON, origin_after_ns=asked_ns)
        assert failed.value.reason == "ORIGIN_OUTDATED"
