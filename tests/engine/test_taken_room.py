"""Does L2 shrink when other files take the room of its filesystem? Promise 5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from tests.support.engine.house import EngineHouse
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

COUNT = 10
INODES = 64


@pytest.fixture
def l2_disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    with small_filesystem(tmp_path / "small-l2", 4 << 20, INODES) as disk:
        yield disk


@pytest.fixture
async def full_house(closed_house: EngineHouse, l2_disk: SmallFilesystem) -> EngineHouse:
    house = closed_house
    house.root = l2_disk.path
    house.open()
    for number in range(COUNT):
        await store(house, garment(number))
    return house


def garment(number: int) -> EntryKey:
    return EntryKey("garment", f"g{number}")


async def store(house: EngineHouse, key: EntryKey) -> None:
    house.upload(key, 1)
    house.clock.advance(1)
    await house.get(key)
    await house.settle()
    house.memory.remove(key, Leaving.BYTES_LIMIT)


def take_all_inodes(disk: SmallFilesystem) -> None:
    with suppress(OSError):
        for number in range(INODES):
            (disk.path / f"foreign-{number}").touch()


async def test_where_the_inodes_are_used_up_new_entries_take_the_place_of_old_ones(
    full_house: EngineHouse, l2_disk: SmallFilesystem
) -> None:
    house = full_house
    take_all_inodes(l2_disk)
    for number in range(COUNT, 2 * COUNT):
        await store(house, garment(number))
    newest = garment(2 * COUNT - 1)
    assert (await house.get(newest, may_ask_origin=False)).tier == "disk"
    assert house.metrics.value("disk_refused_writes") >= 1
    assert house.metrics.value("disk_rejections") == 0
    assert house.catalog.lookup(garment(0)) is None
    assert house.disk.totals["garment"].entries == len(house.files()) > 0


async def test_where_the_bytes_are_used_up_new_entries_take_the_place_of_old_ones(
    full_house: EngineHouse, l2_disk: SmallFilesystem
) -> None:
    house = full_house
    l2_disk.fill()
    await store(house, garment(COUNT))
    assert (await house.get(garment(COUNT), may_ask_origin=False)).tier == "disk"
    assert house.catalog.lookup(garment(0)) is None


async def test_the_limit_in_force_is_what_others_leave(
    full_house: EngineHouse, l2_disk: SmallFilesystem
) -> None:
    disk = full_house.disk
    now = full_house.clock.read()
    # The filesystem is smaller than the configured limit.
    assert disk.room.used_bytes < disk.room.limit_in_force_bytes < disk.room.max_bytes
    l2_disk.fill()
    await disk.step(now.steady_ns, now.wall_ns)
    assert disk.room.limit_in_force_bytes == disk.room.occupied_bytes
