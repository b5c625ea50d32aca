"""Does L2 serve only entries that are whole, not expired, and of the model that was asked for?

Promises 2 and 6.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator
from dataclasses import replace

import pytest

from cachesvc.core.errors import CacheError, NoSuchObject
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, Kinds
from cachesvc.core.leaving import Leaving
from cachesvc.core.ttl import jitter_factor
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
HOUR_S = 3600.0


async def fill(house: EngineHouse, version: int = 1) -> None:
    """Put an entry into L2 only."""
    house.upload(PERSON, version)
    await house.get(PERSON)
    await house.settle()
    await house.restart()


def flip_a_bit(house: EngineHouse, at: int) -> None:
    (path,) = house.files()
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


async def test_a_restart_keeps_l2_and_asks_the_origin_nothing(house: EngineHouse) -> None:
    await fill(house)
    reads = len(house.origin.reads)
    assert (await house.get(PERSON)).tier == "disk"
    assert (await house.get(PERSON)).tier == "memory"
    assert len(house.origin.reads) == reads


@pytest.mark.parametrize("at", [0, 9, 100, -1], ids=["length", "header", "middle", "last byte"])
async def test_a_damaged_file_is_quarantined_counted_and_refilled(
    house: EngineHouse, at: int
) -> None:
    await fill(house)
    flip_a_bit(house, at)
    house.upload(PERSON, 2)
    assert (await house.get(PERSON)).tier == "origin"
    assert await house.version(PERSON) == 2
    assert house.metrics.value("damaged_entries") == 1
    assert len(list((house.root / ".quarantine").iterdir())) == 1
    await house.settle()
    await house.restart()
    assert (await house.get(PERSON)).tier == "disk"


@pytest.mark.parametrize("change", [-1, 1], ids=["shorter", "longer"])
async def test_a_file_of_another_length_is_damaged(house: EngineHouse, change: int) -> None:
    await fill(house)
    (path,) = house.files()
    os.truncate(path, path.stat().st_size + change)
    assert (await house.get(PERSON)).tier == "origin"
    assert house.metrics.value("damaged_entries") == 1


async def test_a_lost_file_is_a_miss_that_is_refilled(house: EngineHouse) -> None:
    await fill(house)
    # V2's clean-up deletes files by age, also under a running daemon.
    house.files()[0].unlink()
    assert (await house.get(PERSON)).tier == "origin"
    await house.settle()
    assert house.disk.totals[PERSON.namespace].entries == 1
    await house.restart()
    assert (await house.get(PERSON)).tier == "disk"


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Make every open in this process fail with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


async def test_an_entry_that_cannot_be_opened_for_want_of_descriptors_is_not_lost(
    closed_house: EngineHouse,
) -> None:
    """Promise 9: an entry that a Put stored may exist nowhere else."""
    house = closed_house
    house.disk_threads = 1  # so the one reader's connection to the catalog is open already
    house.open()
    await house.put(PERSON, 1)
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert (await house.get(PERSON)).tier == "disk"
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    with no_descriptors_left(), pytest.raises(NoSuchObject):
        await house.get(PERSON)
    house.clock.advance(10)  # longer than the origin's absence is remembered
    assert await house.version(PERSON) == 1


async def test_swapped_files_are_never_served_for_each_other(house: EngineHouse) -> None:
    bob = EntryKey("human_upper_body", "bob")
    house.upload(PERSON, 1)
    house.upload(bob, 2)
    await house.get(PERSON)
    await house.get(bob)
    await house.settle()
    await house.restart()
    first, second = house.files()
    swap = first.with_name("swap")
    first.rename(swap)
    second.rename(first)
    swap.rename(second)
    assert await house.version(PERSON) == 1
    assert await house.version(bob) == 2
    assert house.metrics.value("damaged_entries") == 2


async def test_a_row_of_another_kind_version_is_filled_anew(house: EngineHouse) -> None:
    await fill(house)
    await house.end()
    house.kinds = Kinds(tuple(replace(kind, version="v2") for kind in BUILT_IN))
    house.open()
    served = await house.get(PERSON)
    assert served.tier == "origin"
    assert served.meta.kind_version == "v2"
    await house.settle()
    await house.restart()
    assert (await house.get(PERSON)).tier == "disk"


async def test_an_entry_is_refilled_at_exactly_its_expiry_time(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    served = await house.get(PERSON)
    ttl_s = 24 * HOUR_S * jitter_factor(served.meta.generation)
    await house.settle()
    house.upload(PERSON, 2)
    house.clock.advance((served.expires_ns - house.clock.read().steady_ns - 1) / 1e9)
    assert ttl_s <= 24 * HOUR_S
    assert await house.version(PERSON) == 1
    house.clock.advance(1e-8)
    assert await house.version(PERSON) == 2


async def test_l2_expires_too(house: EngineHouse) -> None:
    await fill(house)
    house.upload(PERSON, 2)
    house.clock.advance(24 * HOUR_S)
    assert await house.version(PERSON) == 2


@pytest.mark.parametrize(("hits", "factor"), [(9, 1), (10, 2), (49, 2), (50, 4)])
async def test_the_adaptive_ttl_survives_a_restart(
    house: EngineHouse, hits: int, factor: int
) -> None:
    house.upload(PERSON, 1)
    served = await house.get(PERSON)
    await house.settle()
    for _ in range(hits - 1):
        await house.get(PERSON)
    await house.cache.upkeep.disk_step()
    await house.restart()
    house.upload(PERSON, 2)
    end_s = 24 * HOUR_S * factor * jitter_factor(served.meta.generation)
    house.clock.advance(end_s - 1)
    inspected = await house.cache.inspect(PERSON)
    assert inspected.disk is not None
    assert inspected.disk.accesses == hits
    await house.cache.upkeep.disk_step()
    inspected = await house.cache.inspect(PERSON)
    assert inspected.disk is not None
    house.clock.advance(2)
    assert await house.version(PERSON) == 2


async def test_accesses_of_an_entry_that_l1_evicted_are_not_forgotten(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    for _ in range(11):
        await house.get(PERSON)
    house.memory.remove(PERSON, Leaving.ENTRIES_LIMIT)
    await house.get(PERSON)
    await house.cache.upkeep.disk_step()
    row = await house.disk.lookup(PERSON)
    assert row is not None
    assert row.accesses == 13


async def test_uses_of_an_entry_that_l1_has_no_room_for_are_counted(
    closed_house: EngineHouse,
) -> None:
    house = closed_house
    house.memory_max_bytes = 1
    house.open()
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    house.clock.advance(60)
    for _ in range(10):
        assert (await house.get(PERSON)).tier == "disk"
    await house.cache.upkeep.disk_step()
    row = await house.disk.lookup(PERSON)
    assert row is not None
    assert row.last_access_ns == house.clock.read().steady_ns
    assert row.accesses >= 10


async def test_an_entry_from_the_future_is_not_served(house: EngineHouse) -> None:
    await fill(house)
    house.upload(PERSON, 2)
    house.clock.step_wall(-365 * 24 * HOUR_S)
    await house.restart()
    assert await house.version(PERSON) == 2


async def test_a_wall_clock_that_steps_while_the_daemon_runs_ends_no_ttl(
    house: EngineHouse,
) -> None:
    house.upload(PERSON, 1)
    await house.get(PERSON)
    for years in (1, -2):
        house.clock.step_wall(years * 365 * 24 * HOUR_S)
        assert (await house.get(PERSON)).tier == "memory"


async def test_a_served_entry_keeps_its_bytes_when_it_is_evicted_before_they_are_read(
    house: EngineHouse,
) -> None:
    bob = EntryKey("human_upper_body", "bob")
    house.upload(PERSON, 1)
    house.upload(bob, 2)
    served = await house.get(PERSON)
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    # The file of this entry gets the descriptor's number that became free.
    await house.get(bob)
    assert bytes(served.blob.view()) == await _expected(house)


async def _expected(house: EngineHouse) -> bytes:
    house.upload(PERSON, 1)
    return bytes((await house.get(PERSON)).blob.view())


async def test_inspect_touches_neither_recency_nor_accesses(house: EngineHouse) -> None:
    await fill(house)
    await house.get(PERSON)
    before = await house.cache.inspect(PERSON)
    house.clock.advance(5)
    after = await house.cache.inspect(PERSON)
    assert before.memory is not None
    assert after.memory is not None
    assert after.memory.accesses == before.memory.accesses
    assert after.memory.last_access_ns == before.memory.last_access_ns


async def test_an_error_of_l1_does_not_cost_l2_its_entry(house: EngineHouse) -> None:
    await fill(house)
    (house.runtime / "l1").rmdir()  # deleted under the daemon, so every write to L1 fails
    with contextlib.suppress(CacheError):
        await house.get(PERSON)
    await house.settle()
    assert await house.disk.lookup(PERSON) is not None
    assert len(house.files()) == 1
