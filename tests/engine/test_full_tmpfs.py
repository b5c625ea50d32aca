"""Does an entry get into L1 when others have filled tmpfs? Promise 5.

The entry comes by each of the ways into L1: a fill, a promotion from L2, a Put. The tmpfs is small.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from tests.support.engine.house import EngineHouse
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

IDLE = tuple(EntryKey("garment", f"idle-{number}") for number in range(40))
HOT = EntryKey("garment", "hot")
SIZE_BYTES = 2 << 20


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[SmallFilesystem]:
    with small_filesystem(tmp_path / "small-runtime", SIZE_BYTES) as disk:
        yield disk


async def _by_a_fill(house: EngineHouse, tmpfs: SmallFilesystem) -> None:
    house.upload(HOT, 1)
    tmpfs.fill()
    assert (await house.get(HOT)).tier == "origin"


async def _by_a_promotion(house: EngineHouse, tmpfs: SmallFilesystem) -> None:
    house.upload(HOT, 1)
    await house.get(HOT)
    await house.settle()
    assert house.memory.remove(HOT, Leaving.BYTES_LIMIT)
    house.memory.spares.finish()
    tmpfs.fill()
    assert (await house.get(HOT)).tier == "disk"


async def _by_a_put(house: EngineHouse, tmpfs: SmallFilesystem) -> None:
    tmpfs.fill()
    await house.put(HOT, 1)


@pytest.mark.parametrize("bring", [_by_a_fill, _by_a_promotion, _by_a_put])
async def test_an_entry_gets_into_l1_though_others_have_filled_tmpfs(
    closed_house: EngineHouse,
    tmpfs: SmallFilesystem,
    bring: Callable[[EngineHouse, SmallFilesystem], Awaitable[None]],
) -> None:
    house = closed_house
    house.runtime = tmpfs.path
    house.open()
    for key in IDLE:
        await house.put(key, 1)
    await bring(house, tmpfs)
    served = await house.get(HOT)
    assert served.tier == "memory"
    assert served.blob.shared_name is not None, "the entry is a file of L1, not on the heap"
    assert len(house.memory.index) < len(IDLE) + 1
    await house.settle()
