"""Does a catalog of the first release open with all its contents? Promises 1 and 6.

The first release wrote `first_release/catalog.sqlite`: five entries (one put with `as_of`), the
changes of a person and of a garment, a boot id, and a clean end.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cachesvc.core.entry import Row
from cachesvc.core.errors import CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.tiers import catalog_damage, catalog_schema
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.catalog_facts import Total
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of

FIRST_RELEASE = Path(__file__).parent / "first_release" / "catalog.sqlite"
SHIRT, COAT, PUT = (EntryKey("garment", name) for name in ("shirt", "coat", "put"))
CAROL = Scope(ScopeKind.USER, "carol", ("human_lower_body", "human_upper_body"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copy(FIRST_RELEASE, tmp_path)
    return tmp_path


@pytest.fixture
def catalog(directory: Path) -> Iterator[Catalog]:
    catalog = opened(directory)
    yield catalog
    catalog.close()


def opened(directory: Path) -> Catalog:
    return Catalog(directory, on_reset=refuse_reset)


def refuse_reset() -> None:
    raise AssertionError("the catalog was set aside")


def version_of(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


async def add_all_sums(catalog: Catalog) -> None:
    while not await catalog.add_sums():
        pass


@pytest.mark.parametrize("have_sums", [False, True])
async def test_a_catalog_of_the_first_release_keeps_its_entries_and_changes(
    catalog: Catalog, *, have_sums: bool
) -> None:
    if have_sums:
        await add_all_sums(catalog)
    row = catalog.lookup(SHIRT)
    expected = meta_of(SHIRT, b"blob", generation=START_NS, owner="bob")
    assert row == Row(expected, 0, START_NS)
    put = catalog.lookup(PUT)
    assert put is not None
    assert put.meta.as_of_ns == START_NS - 5
    assert put.meta.explicit_ttl_s == 12.5
    assert put.accesses == 3
    assert catalog.lookup(COAT) is None  # the first release invalidated it
    assert sum(total.entries for total in catalog.totals.values()) == 4
    assert catalog.totals["garment"] == Total(2, 8192)
    assert catalog.last_change_ns([CAROL]) == START_NS - 100
    assert catalog.last_change_ns([key_scope(COAT)]) == START_NS - 50
    assert catalog.last_change_ns([key_scope(PUT)]) == START_NS - 5
    assert catalog.last_generation == START_NS + 9
    assert catalog.last_boot_id == b"0123456789abcdef"
    assert catalog.ended_cleanly
    assert catalog.acknowledge_from_ns == 7
    assert catalog.last_write_ns == 0  # the first release stored no such time


async def test_a_migrated_catalog_is_a_new_one_for_good(directory: Path) -> None:
    opened(directory).close()
    assert version_of(directory) == catalog_schema.SCHEMA_VERSION
    again = opened(directory)
    assert again.lookup(SHIRT) is not None
    assert not again.all_have_sums
    await add_all_sums(again)
    again.close()
    third = opened(directory)
    assert third.all_have_sums
    assert third.lookup(SHIRT) is not None
    third.close()


async def test_rows_of_the_first_release_are_invalidated_evicted_and_renewed(
    catalog: Catalog,
) -> None:
    row = catalog.lookup(SHIRT)
    assert row is not None
    await catalog.confirm(row)
    await catalog.record_accesses([Row(row.meta, 5, START_NS + 50)])
    renewed = catalog.lookup(SHIRT)
    assert renewed == Row(row.meta, 5, START_NS + 50)
    assert [row.meta.key for row in await catalog.evict(1)] == [PUT]
    owner = Scope(ScopeKind.OWNER, "bob")
    removed = await catalog.invalidate(catalog.change_of(owner, START_NS))
    assert {at.key for at in removed} == {SHIRT, EntryKey("text", "shirt")}
    assert catalog.lookup(SHIRT) is None


async def test_once_they_have_sums_damage_of_old_rows_is_found(directory: Path) -> None:
    catalog = opened(directory)
    await add_all_sums(catalog)
    catalog.close()
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as db, db:
        db.execute("UPDATE entries SET begun_ns = begun_ns + 1 WHERE id = 'shirt'")
    again = opened(directory)
    with pytest.raises(CorruptEntry):
        again.lookup(SHIRT)
    again.close()


@pytest.mark.parametrize("statement", range(14))
def test_a_crash_in_the_middle_of_the_migration_leaves_the_old_catalog(
    directory: Path, monkeypatch: pytest.MonkeyPatch, statement: int
) -> None:
    steps = [part for part in catalog_schema.MIGRATIONS[1].split(";") if part.strip()]
    assert len(steps) == 14
    broken = ";".join([*steps[:statement], "SELECT * FROM nowhere", *steps[statement:]])
    before = dump(directory)
    with monkeypatch.context() as patched:
        patched.setattr(catalog_schema, "MIGRATIONS", (catalog_schema.MIGRATIONS[0], broken))
        with (
            closing(catalog_damage.connect(str(directory / "catalog.sqlite"), timeout_s=1)) as db,
            pytest.raises(sqlite3.OperationalError),
        ):
            catalog_schema.migrate(db)
    assert version_of(directory) == 1
    assert dump(directory) == before
    catalog = opened(directory)
    assert catalog.lookup(SHIRT) is not None
    catalog.close()


def dump(directory: Path) -> list[str]:
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as db:
        return list(db.iterdump())


async def test_only_a_newer_schema_is_set_aside(directory: Path) -> None:
    opened(directory).close()
    with closing(sqlite3.connect(directory / "catalog.sqlite")) as db, db:
        db.execute(f"PRAGMA user_version = {catalog_schema.SCHEMA_VERSION + 1}")
    resets: list[None] = []
    catalog = Catalog(directory, on_reset=lambda: resets.append(None))
    assert len(resets) == 1
    assert catalog.lookup(SHIRT) is None
    assert (directory / "catalog.sqlite.damaged").exists()
    catalog.close()
