"""Is a snapshot of the directories recognised that is put back between two lives? Promise 1.

Entries that were invalidated after the snapshot must not come back with it. The tests also show the
limit, the snapshot that cannot be recognised; docs/promises.md and docs/operating.md tell it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import key_scope
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
OTHER = EntryKey("garment", "coat")


class Snapshot:
    """Copies of the directories of a dead daemon, to be put back later."""

    def __init__(self, house: EngineHouse, folder: Path) -> None:
        self._house = house
        self._folder = folder
        for directory in (house.root, house.state_dir):
            shutil.copytree(directory, folder / directory.name)

    def put_back(self, directory: Path) -> None:
        shutil.rmtree(directory)
        shutil.copytree(self._folder / directory.name, directory)


@pytest.fixture
async def snapshot(house: EngineHouse, tmp_path: Path) -> Snapshot:
    """A snapshot with version 1 in L2; after it the person was invalidated, and has version 2."""
    for key in (PERSON, OTHER):
        house.upload(key, 1)
        await house.get(key)
    await house.settle()
    await house.end()
    taken = Snapshot(house, tmp_path / "snapshot")
    house.open()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    await house.end()
    return taken


async def test_a_restored_catalog_alone_is_a_lost_one(
    house: EngineHouse, snapshot: Snapshot
) -> None:
    """L2's root has a newer witness than the catalog, also after a boot."""
    snapshot.put_back(house.state_dir)
    (house.runtime / "catalog").unlink()
    house.open()
    assert house.catalog_resets == 1
    assert await house.version(PERSON) == 2
    assert await house.version(OTHER) == 1


async def test_a_restored_l2_alone_brings_nothing_back(
    house: EngineHouse, snapshot: Snapshot
) -> None:
    """The catalog was not restored, and has no row for the invalidated entry."""
    snapshot.put_back(house.root)
    house.open()
    assert house.catalog_resets == 0
    assert await house.version(PERSON) == 2
    assert (await house.get(OTHER, may_ask_origin=False)).tier == "disk"


async def test_both_restored_on_one_boot_are_a_lost_catalog(
    house: EngineHouse, snapshot: Snapshot
) -> None:
    """The runtime directory has a newer witness."""
    snapshot.put_back(house.state_dir)
    snapshot.put_back(house.root)
    house.open()
    assert house.catalog_resets == 1
    assert await house.version(PERSON) == 2


async def test_both_restored_over_a_boot_are_not_recognised(
    house: EngineHouse, snapshot: Snapshot
) -> None:
    """A limit: no newer witness is left on this host. An operator who restores both empties
    `state_dir`.
    """
    snapshot.put_back(house.state_dir)
    snapshot.put_back(house.root)
    (house.runtime / "catalog").unlink()
    house.open()
    assert house.catalog_resets == 0
    assert await house.version(PERSON) == 1


async def test_after_a_restored_snapshot_the_next_life_is_an_ordinary_one(
    house: EngineHouse, snapshot: Snapshot
) -> None:
    snapshot.put_back(house.state_dir)
    house.open()
    assert await house.version(PERSON) == 2
    await house.settle()
    await house.restart()
    assert house.catalog_resets == 1
    assert (await house.get(PERSON, may_ask_origin=False)).tier == "disk"


async def test_a_catalog_of_another_l2_root_is_a_lost_one(
    house: EngineHouse, snapshot: Snapshot, tmp_path: Path
) -> None:
    shutil.rmtree(house.state_dir)
    house.state_dir.mkdir()
    house.open()  # a new catalog, which the root's witness now names
    await house.cache.invalidate(key_scope(OTHER))
    await house.end()
    snapshot.put_back(house.state_dir)
    house.open()
    assert house.catalog_resets == 1
    assert await house.version(PERSON) == 2


async def test_a_spoilt_witness_is_no_witness(house: EngineHouse, snapshot: Snapshot) -> None:
    for witness in (house.runtime / "catalog", house.root / ".catalog"):
        data = bytearray(witness.read_bytes())
        data[35] ^= 1
        witness.write_bytes(data)
    house.open()
    assert house.catalog_resets == 0
    assert (await house.get(OTHER, may_ask_origin=False)).tier == "disk"


async def test_a_log_that_was_deleted_is_a_lost_catalog(house: EngineHouse) -> None:
    """SQLite opens the rest without an error, and the invalidation in the log is lost."""
    house.upload(PERSON, 1)
    await house.get(PERSON)
    await house.settle()
    await house.restart()
    house.upload(PERSON, 2)
    await house.cache.invalidate(key_scope(PERSON))
    before = (house.state_dir / "catalog.sqlite").read_bytes()  # its log was not merged yet
    await house.end()
    (house.state_dir / "catalog.sqlite").write_bytes(before)
    house.open()
    assert house.catalog_resets == 1
    assert await house.version(PERSON) == 2
