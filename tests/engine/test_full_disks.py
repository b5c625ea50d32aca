"""Is an invalidation final, and are Gets served, when disks are full or read-only?

Promises 1, 2, 5 and 8. The filesystems are real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import Aborted, CacheError, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import key_scope
from cachesvc.engine import invalidate
from tests.support.engine.house import EngineHouse
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

PERSON = EntryKey("human_upper_body", "alice")
SIZE_BYTES = 4 << 20


@pytest.fixture
def state_disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    """A small filesystem for the catalog."""
    with small_filesystem(tmp_path / "small-state", SIZE_BYTES) as disk:
        yield disk


@pytest.fixture
def l2_disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    """A small filesystem for L2's files."""
    with small_filesystem(tmp_path / "small-l2", SIZE_BYTES) as disk:
        yield disk


@pytest.fixture
def small_house(
    state_disk: SmallFilesystem, l2_disk: SmallFilesystem, closed_house: EngineHouse
) -> EngineHouse:
    closed_house.state_dir = state_disk.path
    closed_house.root = l2_disk.path
    closed_house.open()
    return closed_house


async def fill(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()


async def test_an_invalidation_is_final_although_the_catalog_is_full(
    small_house: EngineHouse, state_disk: SmallFilesystem
) -> None:
    house = small_house
    await fill(house)
    state_disk.fill()
    done = await house.cache.invalidate(key_scope(PERSON))
    assert done.removed_count == 1
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    await house.settle()
    state_disk.free()
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_damage_that_cannot_be_set_aside_is_a_counted_miss_and_refilled(
    small_house: EngineHouse, l2_disk: SmallFilesystem
) -> None:
    """Promise 2. An L2 that became read-only can neither move the damaged file nor unlink it."""
    house = small_house
    await fill(house)
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    (file,) = house.files()
    file.write_bytes(bytes(file.stat().st_size))
    house.upload(PERSON, 2)
    l2_disk.set_read_only(True)
    assert await house.version(PERSON) == 2
    assert house.metrics.value("damaged_entries") == 1
    assert house.catalog.lookup(PERSON) is None
    assert house.files() == [file]


async def test_the_change_of_an_invalidation_on_a_full_disk_is_held_against_late_puts(
    small_house: EngineHouse, state_disk: SmallFilesystem
) -> None:
    house = small_house
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(60)
    state_disk.fill()
    await house.cache.invalidate(key_scope(PERSON))
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=read_at_ns)
    assert failed.value.reason == "PUT_OUTDATED"
    state_disk.free()
    await house.cache.upkeep.disk_step()
    await house.restart()
    with pytest.raises(Aborted):
        await house.put(PERSON, 1, as_of_ns=read_at_ns)


async def test_without_a_catalog_and_without_a_disk_it_is_not_durable_until_a_retry_is(
    small_house: EngineHouse,
    state_disk: SmallFilesystem,
    l2_disk: SmallFilesystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invalidate, "RETRY_S", 0.01)
    house = small_house
    await fill(house)
    state_disk.fill()
    l2_disk.set_read_only(True)
    for _ in range(2):
        with pytest.raises(NotDurable):
            await house.cache.invalidate(key_scope(PERSON))
    assert house.cache.levels().unfinished_invalidations == 1
    assert house.engine.problems.current().keys() == {"invalidations"}
    assert house.metrics.value("failed_invalidations") == 2
    assert house.metrics.value("invalidations") == 0
    assert house.engine.tombstones.covers(PERSON, "alice")
    # The invalidation is not durable, yet the old entry is not served: the tombstone stays.
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2

    l2_disk.set_read_only(False)
    state_disk.free()
    await house.settle()
    assert house.cache.levels().unfinished_invalidations == 0
    assert house.engine.problems.current() == {}
    assert len(house.engine.tombstones) == 0
    await house.restart()
    assert await house.version(PERSON) == 2


class Disks:
    """The catalog's and L2's filesystem, which fail and recover together."""

    def __init__(self, state_disk: SmallFilesystem, l2_disk: SmallFilesystem) -> None:
        self._state_disk = state_disk
        self._l2_disk = l2_disk

    def fail(self) -> None:
        self._state_disk.fill()
        self._l2_disk.set_read_only(True)

    def recover(self) -> None:
        self._l2_disk.set_read_only(False)
        self._state_disk.free()


@pytest.fixture
def disks(state_disk: SmallFilesystem, l2_disk: SmallFilesystem) -> Disks:
    return Disks(state_disk, l2_disk)


async def fail_to_invalidate(house: EngineHouse, changed_at_ns: int | None = None) -> None:
    with pytest.raises(NotDurable):
        await house.cache.invalidate(key_scope(PERSON), changed_at_ns)


async def test_an_invalidation_that_fails_while_a_retry_unlinks_is_retried_itself(
    small_house: EngineHouse, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidate, "RETRY_S", 0.01)
    house = small_house
    await fill(house)
    disks.fail()
    await fail_to_invalidate(house)
    unlinks = house.gates.stop("l2_unlink")
    disks.recover()
    await unlinks.reached()
    await house.put(PERSON, 2)
    disks.fail()
    await fail_to_invalidate(house)
    house.upload(PERSON, 3)
    assert house.cache.levels().unfinished_invalidations == 1
    assert await house.version(PERSON) == 3
    disks.recover()
    unlinks.release()
    await house.settle()
    assert house.cache.levels().unfinished_invalidations == 0
    assert len(house.engine.tombstones) == 0
    await house.restart()
    assert await house.version(PERSON) == 3


@pytest.mark.parametrize("later_s", [0, 60], ids=["of_the_same_change", "of_a_later_change"])
async def test_an_invalidation_that_fails_while_a_retry_succeeds_is_retried_again(
    small_house: EngineHouse, disks: Disks, monkeypatch: pytest.MonkeyPatch, later_s: int
) -> None:
    """The entry that was put behind the retry's DELETE is covered by the second retry alone."""
    monkeypatch.setattr(invalidate, "RETRY_S", 0.01)
    house = small_house
    await fill(house)
    disks.fail()
    changed_ns = house.clock.read().wall_ns
    await fail_to_invalidate(house, changed_ns)
    is_durable = house.gates.stop("l2_removed")
    disks.recover()
    await is_durable.reached()
    await house.put(PERSON, 2)
    disks.fail()
    house.clock.advance(later_s)
    await fail_to_invalidate(house, changed_ns + later_s * NS_PER_S)
    disks.recover()
    is_durable.release()
    await house.settle()
    assert house.cache.levels().unfinished_invalidations == 0
    assert len(house.engine.tombstones) == 0
    house.upload(PERSON, 3)
    assert await house.version(PERSON) == 3
    await house.settle()
    await house.restart()
    last_ns = await house.disk.last_change_ns((key_scope(PERSON),))
    assert last_ns == changed_ns + later_s * NS_PER_S


async def test_a_put_older_than_the_later_of_two_changes_that_are_being_retried_is_outdated(
    small_house: EngineHouse, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidate, "RETRY_S", 3600.0)
    house = small_house
    await fill(house)
    disks.fail()
    first_ns = house.clock.read().wall_ns
    house.clock.advance(60)
    second_ns = house.clock.read().wall_ns
    # The changes may come in any order: the backend repeats the older one until it is answered.
    for changed_ns in (first_ns, second_ns, first_ns):
        await fail_to_invalidate(house, changed_ns)
    assert house.cache.levels().unfinished_invalidations == 1
    assert len(house.engine.tombstones) == 1
    disks.recover()
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 2, as_of_ns=second_ns - NS_PER_S)
    assert failed.value.reason == "PUT_OUTDATED"


async def test_a_drain_that_ends_a_retry_does_not_say_that_every_change_is_known(
    small_house: EngineHouse, disks: Disks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidate, "RETRY_S", 3600.0)
    house = small_house
    await fill(house)
    disks.fail()
    await fail_to_invalidate(house)
    disks.recover()
    await house.cache.drain(deadline_s=0.0)
    await house.restart()
    assert not house.catalog.ended_cleanly


async def test_a_drain_that_ends_an_invalidation_does_not_say_that_every_change_is_known(
    house: EngineHouse,
) -> None:
    """The invalidation may fail after the drain, when nothing is left that would record it."""
    await fill(house)
    is_durable = house.gates.stop("l2_removed")
    invalidating = asyncio.create_task(house.cache.invalidate(key_scope(PERSON)))
    await is_durable.reached()
    await house.cache.drain(deadline_s=0.0)
    await asyncio.gather(invalidating, return_exceptions=True)
    await house.restart()
    assert not house.catalog.ended_cleanly


async def test_gets_are_served_while_the_catalog_is_full(
    small_house: EngineHouse, state_disk: SmallFilesystem
) -> None:
    house = small_house
    bob = EntryKey("human_upper_body", "bob")
    await fill(house)
    house.upload(bob, 2)
    state_disk.fill()
    assert await house.version(bob) == 2
    await house.settle()
    assert (await house.get(bob)).tier == "memory"
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert (await house.get(PERSON)).tier == "disk"
    assert len(house.files()) == 1


async def test_gets_are_served_while_l2_is_full(
    small_house: EngineHouse, l2_disk: SmallFilesystem
) -> None:
    house = small_house
    bob = EntryKey("human_upper_body", "bob")
    await fill(house)
    l2_disk.fill()
    house.upload(bob, 2)
    assert await house.version(bob) == 2
    await house.settle()
    assert (await house.get(bob)).tier == "memory"
    assert len(house.files()) <= 1
    assert list((house.root / ".tmp").iterdir()) == []
    await house.cache.invalidate(key_scope(bob))
    house.upload(bob, 3)
    assert await house.version(bob) == 3


async def test_a_fill_that_replaces_other_bytes_deletes_the_older_row_before_it_answers(
    small_house: EngineHouse, l2_disk: SmallFilesystem
) -> None:
    house = small_house
    await fill(house)
    l2_disk.fill()
    house.clock.advance(60)
    house.upload(PERSON, 2)
    changed_ns = house.clock.read().wall_ns
    assert await house.version(PERSON, origin_after_ns=changed_ns) == 2
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_a_put_on_full_disks_leaves_the_newest_entry_or_none(
    small_house: EngineHouse, state_disk: SmallFilesystem, l2_disk: SmallFilesystem
) -> None:
    house = small_house
    await house.put(PERSON, 1)
    l2_disk.fill()
    state_disk.fill()
    results = await asyncio.gather(house.put(PERSON, 2), return_exceptions=True)
    acknowledged = not isinstance(results[0], BaseException)
    assert acknowledged or isinstance(results[0], CacheError)
    house.upload(PERSON, 3)
    state_disk.free()
    l2_disk.free()
    await house.restart()
    assert await house.version(PERSON) in ((2, 3) if acknowledged else (1, 2, 3))


async def test_after_the_disk_is_free_again_l2_takes_entries_again(
    small_house: EngineHouse, state_disk: SmallFilesystem, l2_disk: SmallFilesystem
) -> None:
    house = small_house
    state_disk.fill()
    l2_disk.fill()
    await fill(house)
    state_disk.free()
    l2_disk.free()
    await house.cache.invalidate(key_scope(PERSON))
    await fill(house)
    await house.restart()
    assert (await house.get(PERSON)).tier == "disk"


async def test_a_row_that_a_full_disk_kept_is_gone_before_it_reads_as_damage(
    small_house: EngineHouse, state_disk: SmallFilesystem
) -> None:
    house = small_house
    await fill(house)
    state_disk.fill()
    await house.cache.invalidate(key_scope(PERSON))  # by an unlink alone
    state_disk.free()
    await house.cache.upkeep.disk_step()
    assert await house.disk.lookup(PERSON) is None
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    assert house.metrics.value("damaged_entries") == 0
    # What was stored since stays, however often upkeep runs.
    await house.settle()
    await house.cache.upkeep.disk_step()
    assert await house.disk.lookup(PERSON) is not None
