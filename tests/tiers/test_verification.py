"""Does the check of L2 tell damage from changes that the daemon makes meanwhile?

Promise 2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cachesvc.core.entry import Row
from cachesvc.core.errors import ConfigError, CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.catalog_file import FILE_NAME
from cachesvc.tiers.catalog_view import PAGE_ROWS, CatalogView
from cachesvc.tiers.disk_files import DiskFiles, Location
from cachesvc.tiers.verification import Verdict, check_entry
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of

BLOB = bytes(range(256)) * 64


class Store:
    """A daemon's L2, locked and open, and the checker's own view of it."""

    def __init__(self, folder: Path) -> None:
        self.state_dir, self.root = folder / "state", folder / "l2"
        self.state_dir.mkdir()
        self.catalog = Catalog(self.state_dir, on_reset=lambda: None)
        self.files = DiskFiles(self.root, ("garment", "text"))
        self.view = CatalogView(self.state_dir)
        self.beside = DiskFiles.beside_a_daemon(self.root)

    async def put(self, name: str, generation: int = 7, data: bytes = BLOB) -> Row:
        meta = meta_of(EntryKey("garment", name), data, generation=generation)
        self.files.write(Location(meta.key, generation), data)
        await self.catalog.upsert(Row(meta, 0, START_NS))
        return next(row for row in self.view.rows() if row.meta.key.id == name)

    def path(self, row: Row) -> Path:
        key = row.meta.key
        return self.root / key.namespace / key.id / f"{row.meta.generation}.safetensors"

    def verdict(self, row: Row) -> Verdict:
        return check_entry(self.view, self.beside, row).verdict

    def close(self) -> None:
        for part in (self.beside, self.files, self.catalog):
            part.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    yield store
    store.view.close()
    await asyncio.to_thread(store.close)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


async def test_what_was_written_is_intact_while_a_daemon_owns_it(store: Store) -> None:
    assert store.verdict(await store.put("shirt")) is Verdict.INTACT


@pytest.mark.parametrize("at", [0, len(BLOB) // 2, len(BLOB) - 1])
async def test_one_flipped_bit_anywhere_is_damage(store: Store, at: int) -> None:
    row = await store.put("shirt")
    flip(store.path(row), at)
    assert store.verdict(row) is Verdict.DAMAGED


async def test_a_file_that_was_cut_short_is_damage(store: Store) -> None:
    row = await store.put("shirt")
    store.path(row).write_bytes(BLOB[:-1])
    assert store.verdict(row) is Verdict.DAMAGED


async def test_a_row_whose_file_a_clean_up_took_is_missing_and_not_damage(store: Store) -> None:
    row = await store.put("shirt")
    store.path(row).unlink()
    assert store.verdict(row) is Verdict.MISSING


async def test_a_link_in_the_place_of_a_file_is_not_followed(store: Store, tmp_path: Path) -> None:
    row = await store.put("shirt")
    elsewhere = tmp_path / "elsewhere"
    store.path(row).rename(elsewhere)
    store.path(row).symlink_to(elsewhere)
    assert store.verdict(row) is Verdict.UNREADABLE


async def test_an_eviction_between_the_row_and_the_file_is_no_damage(store: Store) -> None:
    row = await store.put("shirt")
    location = Location(row.meta.key, row.meta.generation)
    await store.catalog.delete([location])
    store.files.remove(location)
    assert store.verdict(row) is Verdict.CHANGED


async def test_a_replacement_between_the_row_and_the_file_is_no_damage(store: Store) -> None:
    row = await store.put("shirt", generation=7)
    await store.put("shirt", generation=8, data=BLOB[::-1])
    store.files.remove(Location(row.meta.key, 7))
    assert store.verdict(row) is Verdict.CHANGED


async def test_the_view_yields_every_row_once_over_its_pages(store: Store) -> None:
    count = 2 * PAGE_ROWS + 1
    metas = [
        meta_of(EntryKey(namespace, f"g{number}"), BLOB, generation=number + 1)
        for number in range(count)
        for namespace in ("garment", "text")[: 1 + number % 2]
    ]
    await asyncio.gather(*(store.catalog.upsert(Row(meta, 0, START_NS)) for meta in metas))
    assert [row.meta for row in store.view.rows()] == sorted(metas, key=lambda meta: meta.key)
    assert store.view.total().entries == len(metas)


async def test_a_row_that_cannot_be_understood_is_a_damaged_catalog(store: Store) -> None:
    await store.put("shirt")

    def spoil(db):  # type: ignore[no-untyped-def]
        db.execute("UPDATE entries SET stamps = '[['")

    await store.catalog._writes.put(spoil)
    with pytest.raises(CorruptEntry, match="catalog is damaged"):
        list(store.view.rows())


def test_a_state_directory_without_a_catalog_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="CACHESVC_STATE_DIR"):
        CatalogView(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_a_damaged_catalog(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"no database at all, but long enough to be looked at" * 40)
    view = CatalogView(tmp_path)
    with pytest.raises(CorruptEntry):
        view.total()
    view.close()
