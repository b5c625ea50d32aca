"""Are the rows, their totals and their order right, and is a broken catalog survived?

Promises 1, 5 and 6.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import Row
from cachesvc.core.errors import ConfigError, CorruptEntry, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Change, Scope, ScopeKind, key_scope
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.catalog_facts import Total
from cachesvc.tiers.disk_files import Location, stored_bytes
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

KEY = EntryKey("garment", "shirt")
OTHER = EntryKey("garment", "coat")
BLOB = b"blob"


def row_of(key: EntryKey = KEY, generation: int = 1, size: int = 4, **more: Any) -> Row:
    return Row(meta_of(key, bytes(size), generation=generation, **more), 0, START_NS + generation)


def invalidate(catalog: Catalog, scope: Scope, changed_ns: int) -> asyncio.Future[list[Location]]:
    return catalog.invalidate(catalog.change_of(scope, changed_ns))


class Resets:
    """Counts how often a catalog was set aside."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def resets() -> Resets:
    return Resets()


@pytest.fixture
def catalog(tmp_path: Path, resets: Resets) -> Iterator[Catalog]:
    catalog = Catalog(tmp_path, on_reset=resets)
    yield catalog
    catalog.close()


def counted(directory: Path) -> dict[str, Total]:
    """Return the totals as counted from the rows."""
    with sqlite3.connect(directory / "catalog.sqlite") as db:
        found = db.execute(
            "SELECT namespace, COUNT(*), SUM(stored_bytes) FROM entries GROUP BY namespace"
        ).fetchall()
    db.close()
    return {namespace: Total(entries, size) for namespace, entries, size in found}


def without_empty(totals: dict[str, Total]) -> dict[str, Total]:
    return {namespace: total for namespace, total in totals.items() if total != Total()}


# ---- rows


async def test_a_row_comes_back_as_it_was_stored(catalog: Catalog) -> None:
    meta = meta_of(KEY, BLOB, generation=START_NS, explicit_ttl_s=12.5)
    row = Row(replace(meta, checksum=-5, kind_version="v2", as_of_ns=START_NS), 7, START_NS)
    await catalog.upsert(row)
    assert catalog.lookup(KEY) == row
    assert catalog.lookup(OTHER) is None


@pytest.mark.parametrize("name", ["c#1", "what?", "%41", "mode=ro&x", "a b"])
async def test_a_catalog_is_read_whatever_its_directory_is_called(
    tmp_path: Path, resets: Resets, name: str
) -> None:
    (tmp_path / name).mkdir()
    catalog = Catalog(tmp_path / name, on_reset=resets)
    await catalog.upsert(row_of())
    assert catalog.lookup(KEY) == row_of()
    catalog.close()


async def test_a_key_has_one_row_and_the_replaced_ones_file_is_named(catalog: Catalog) -> None:
    assert await catalog.upsert(row_of(generation=1)) is None
    assert await catalog.upsert(row_of(generation=2)) == Location(KEY, 1)
    found = catalog.lookup(KEY)
    assert found is not None
    assert found.meta.generation == 2
    assert catalog.totals["garment"].entries == 1


async def test_a_read_sees_one_moment_whatever_is_committed_meanwhile(catalog: Catalog) -> None:
    await catalog.upsert(row_of())
    loop = asyncio.get_running_loop()

    async def remove() -> None:
        await invalidate(catalog, key_scope(KEY), 5)

    def look_twice(db: sqlite3.Connection) -> list[int]:
        counts = [db.execute("SELECT COUNT(*) FROM entries").fetchone()[0]]
        asyncio.run_coroutine_threadsafe(remove(), loop).result()
        return [*counts, db.execute("SELECT COUNT(*) FROM entries").fetchone()[0]]

    assert await asyncio.to_thread(catalog._read, look_twice) == [1, 1]
    assert catalog.lookup(KEY) is None


async def test_delete_takes_the_named_generation_only(catalog: Catalog) -> None:
    await catalog.upsert(row_of(generation=2))
    assert await catalog.delete([Location(KEY, 1)]) == []
    assert catalog.lookup(KEY) is not None
    assert await catalog.delete([Location(KEY, 2)]) == [Location(KEY, 2)]
    assert catalog.lookup(KEY) is None


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        (key_scope(KEY), {"human_dresses/shirt", "garment/coat", "text/shirt"}),
        (
            Scope(ScopeKind.CLOTHING, "shirt", ("garment", "text")),
            {"human_dresses/shirt", "garment/coat"},
        ),
        (Scope(ScopeKind.OWNER, "bob"), {"human_dresses/shirt", "garment/shirt", "text/shirt"}),
        (Scope(ScopeKind.NAMESPACE, "garment"), {"human_dresses/shirt", "text/shirt"}),
        (Scope(ScopeKind.EVERYTHING), set()),
    ],
    ids=lambda value: value.kind.value if isinstance(value, Scope) else "",
)
async def test_an_invalidation_deletes_what_its_scope_covers_and_nothing_else(
    catalog: Catalog, scope: Scope, left: set[str]
) -> None:
    keys = [KEY, OTHER, EntryKey("text", "shirt"), EntryKey("human_dresses", "shirt")]
    for generation, key in enumerate(keys, 1):
        await catalog.upsert(row_of(key, generation, owner="bob" if key == OTHER else "alice"))
    named = {
        f"{at.key.namespace}/{at.key.id}" for at in catalog.locations(catalog.change_of(scope, 5))
    }
    deleted = await invalidate(catalog, scope, 5)
    assert {f"{at.key.namespace}/{at.key.id}" for at in deleted} == named
    everything = {f"{key.namespace}/{key.id}" for key in keys}
    assert {f"{k.namespace}/{k.id}" for k in keys if catalog.lookup(k) is not None} == left
    assert everything - named == left


async def test_hostile_values_of_a_scope_are_only_values(catalog: Catalog) -> None:
    await catalog.upsert(row_of())
    for value in ("' OR 1=1 --", "shirt'; DROP TABLE entries; --", "%", "*"):
        assert await invalidate(catalog, Scope(ScopeKind.OWNER, value), 5) == []
    assert catalog.lookup(KEY) is not None


async def test_eviction_takes_the_least_recently_used_until_enough_is_freed(
    catalog: Catalog,
) -> None:
    keys = [EntryKey("garment", f"g{number}") for number in range(4)]
    for generation, key in enumerate(keys, 1):
        await catalog.upsert(row_of(key, generation))
    used = catalog.lookup(keys[0])
    assert used is not None
    await catalog.record_accesses([replace(used, accesses=1, last_access_ns=START_NS + 100)])
    evicted = await catalog.evict(4097)
    assert [row.meta.key for row in evicted] == keys[1:3]
    assert [catalog.lookup(key) is not None for key in keys] == [True, False, False, True]


async def test_a_row_expires_at_exactly_its_time_and_a_batch_is_bounded(catalog: Catalog) -> None:
    for generation in (1, 2, 3):
        key = EntryKey("garment", f"g{generation}")
        await catalog.upsert(row_of(key, generation, explicit_ttl_s=float(generation)))
    assert await catalog.expire(START_NS + NS_PER_S - 1, 10) == []
    assert [r.meta.generation for r in await catalog.expire(START_NS + NS_PER_S, 10)] == [1]
    assert [r.meta.generation for r in await catalog.expire(START_NS + 9 * NS_PER_S, 1)] == [2]


async def test_accesses_move_the_expiry_of_that_generation_only(catalog: Catalog) -> None:
    old = row_of(generation=1)
    await catalog.upsert(row_of(generation=2))
    await catalog.record_accesses([replace(old, accesses=60)])
    found = catalog.lookup(KEY)
    assert found is not None
    assert found.accesses == 0
    await catalog.record_accesses([Row(found.meta, 10, found.last_access_ns)])
    base_end_ns = found.meta.expires_ns(0)
    assert await catalog.expire(base_end_ns, 10) == []
    assert len(await catalog.expire(found.meta.expires_ns(10), 10)) == 1


async def test_changes_are_remembered_forgotten_and_never_go_back(
    catalog: Catalog, tmp_path: Path
) -> None:
    await invalidate(catalog, key_scope(KEY), 10)
    await invalidate(catalog, key_scope(KEY), 5)
    await catalog.record_change(Change(Scope(ScopeKind.OWNER, "bob"), 20))
    scopes = (key_scope(KEY), Scope(ScopeKind.OWNER, "bob"))
    assert catalog.last_change_ns(scopes[:1]) == 10
    assert catalog.last_change_ns(scopes) == 20
    assert catalog.last_change_ns([key_scope(OTHER)]) == 0
    await catalog.forget_changes(20)
    assert catalog.last_change_ns(scopes[:1]) == 0
    assert catalog.last_change_ns(scopes) == 20


async def test_rows_totals_changes_and_the_last_generation_survive_a_restart(
    tmp_path: Path, resets: Resets
) -> None:
    catalog = Catalog(tmp_path, on_reset=resets)
    row = row_of(generation=START_NS)
    await catalog.upsert(row)
    await invalidate(catalog, key_scope(OTHER), 7)
    await catalog.upsert(row_of(OTHER, START_NS + 5))
    await catalog.delete([Location(OTHER, START_NS + 5)])
    catalog.close()
    again = Catalog(tmp_path, on_reset=resets)
    assert again.lookup(KEY) == row
    assert without_empty(again.totals) == {"garment": Total(1, 4096)}
    assert again.last_change_ns([key_scope(OTHER)]) == 7
    # The row with that generation is deleted; no later row may get the generation again.
    assert again.last_generation == START_NS + 5
    again.close()
    assert resets.count == 0


# ---- totals, whatever happens


_KEYS = [EntryKey(namespace, name) for namespace in ("garment", "text") for name in ("a", "b", "c")]
_OPERATIONS = st.one_of(
    st.tuples(st.just("upsert"), st.sampled_from(_KEYS), st.integers(1, 20_000)),
    st.tuples(st.just("delete"), st.sampled_from(_KEYS), st.integers(1, 30)),
    st.tuples(st.just("invalidate"), st.sampled_from(_KEYS), st.booleans()),
    st.tuples(st.just("evict"), st.integers(1, 30_000), st.none()),
    st.tuples(st.just("expire"), st.integers(0, 30), st.none()),
)


async def _apply(catalog: Catalog, index: int, operation: tuple[str, Any, Any]) -> None:
    name, subject, value = operation
    match name:
        case "upsert":
            row = row_of(subject, index, size=value, explicit_ttl_s=float(index))
            await catalog.upsert(row)
        case "delete":
            await catalog.delete([Location(subject, value)])
        case "invalidate":
            scope = key_scope(subject) if value else Scope(ScopeKind.NAMESPACE, subject.namespace)
            await invalidate(catalog, scope, index)
        case "evict":
            freed = await catalog.evict(subject)
            sizes = [stored_bytes(row.meta.size_bytes) for row in freed]
            # The catalog evicts whole entries, and no more of them than needed.
            assert sum(sizes[:-1]) < subject
        case "expire":
            await catalog.expire(START_NS + subject * NS_PER_S, 2)


@settings(max_examples=25, deadline=None)
@given(operations=st.lists(_OPERATIONS, max_size=25))
def test_the_totals_always_equal_the_rows(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, Any, Any]]
) -> None:
    directory = tmp_path_factory.mktemp("catalog")

    async def run() -> None:
        catalog = Catalog(directory, on_reset=Resets())
        for index, operation in enumerate(operations, 1):
            await _apply(catalog, index, operation)
            assert without_empty(catalog.totals) == counted(directory)
        catalog.close()

    asyncio.run(run())


# ---- the order of writes, and what they share


async def hold_the_writer(catalog: Catalog) -> threading.Event:
    """Hold the writer in a batch of its own, so that the writes queued next share one commit."""
    begun, go = threading.Event(), threading.Event()

    def wait(db: sqlite3.Connection) -> None:
        begun.set()
        go.wait(10)

    catalog._writes.put(wait)  # in the daemon, too, writes wait in this queue
    assert await asyncio.to_thread(begun.wait, 10)
    return go


async def test_queued_writes_share_a_commit_and_keep_their_order(catalog: Catalog) -> None:
    statements: list[str] = []
    catalog._db.set_trace_callback(statements.append)
    go = await hold_the_writer(catalog)
    writes: list[Any] = [
        catalog.upsert(row_of(generation=1)),
        invalidate(catalog, key_scope(KEY), 5),
        catalog.upsert(row_of(generation=2)),
        catalog.upsert(row_of(OTHER, 3)),
        catalog.delete([Location(OTHER, 3)]),
    ]
    go.set()
    results = await asyncio.gather(*writes)
    assert results == [None, [Location(KEY, 1)], None, None, [Location(OTHER, 3)]]
    found = catalog.lookup(KEY)
    assert found is not None
    assert found.meta.generation == 2
    assert catalog.lookup(OTHER) is None
    assert statements.count("COMMIT") == 2


async def test_a_failing_write_does_not_spoil_its_batch(catalog: Catalog) -> None:
    go = await hold_the_writer(catalog)
    before = catalog.upsert(row_of(generation=1))
    too_large = catalog.upsert(row_of(OTHER, generation=1 << 70))
    after = catalog.upsert(row_of(EntryKey("text", "shirt"), 3))
    go.set()
    results = await asyncio.gather(before, too_large, after, return_exceptions=True)
    assert isinstance(results[1], OverflowError)
    assert results[0] is None
    assert results[2] is None
    assert catalog.lookup(KEY) is not None
    assert catalog.lookup(OTHER) is None
    assert catalog.lookup(EntryKey("text", "shirt")) is not None
    assert sum(total.entries for total in catalog.totals.values()) == 2


class Fault:
    """Makes SQLite fail the nth execution of the statement `text`, as an I/O error would."""

    def __init__(self, db: sqlite3.Connection, text: str, nth: int = 1) -> None:
        self._text = text
        self._left = nth
        self._is_running = False
        self.has_failed = False
        db.set_trace_callback(self._note)
        db.set_progress_handler(self._interrupts, 1)

    def _note(self, statement: str) -> None:
        self._left -= statement == self._text
        self._is_running = statement == self._text and not self._left

    def _interrupts(self) -> bool:
        fails = self._is_running and not self.has_failed
        self.has_failed |= fails
        return fails


READS_TOTALS = "SELECT namespace, entries, stored_bytes, row_sum FROM totals"


async def test_a_write_that_is_said_to_have_failed_was_not_committed(catalog: Catalog) -> None:
    fault = Fault(catalog._db, READS_TOTALS)
    with pytest.raises(NotDurable):
        await catalog.upsert(row_of())
    assert fault.has_failed
    assert catalog.lookup(KEY) is None
    assert without_empty(catalog.totals) == {}


async def test_a_batch_that_is_run_again_names_no_file_of_its_own_as_replaced(
    catalog: Catalog,
) -> None:
    """Promise 1: otherwise the caller would unlink its own file; an answered Put would be lost."""
    go = await hold_the_writer(catalog)
    fault = Fault(catalog._db, READS_TOTALS, nth=2)  # the held batch executes the first one
    writes = [catalog.upsert(row_of()), catalog.upsert(row_of(OTHER, 2))]
    go.set()
    assert await asyncio.gather(*writes) == [None, None]
    assert fault.has_failed
    assert catalog.totals["garment"].entries == 2


async def test_a_row_that_is_stored_twice_replaces_no_file(catalog: Catalog) -> None:
    # COMMIT fails, its frames are in the log | the catalog is opened again, the log brings the row
    # back | the row is stored again
    await catalog.upsert(row_of())
    assert await catalog.upsert(row_of()) is None
    assert catalog.lookup(KEY) is not None
    assert catalog.totals["garment"].entries == 1


async def test_a_write_whose_waiter_left_is_done_all_the_same(
    tmp_path: Path, resets: Resets
) -> None:
    catalog = Catalog(tmp_path, on_reset=resets)
    catalog.upsert(row_of()).cancel()
    catalog.close()
    again = Catalog(tmp_path, on_reset=resets)
    assert again.lookup(KEY) is not None
    again.close()


# ---- damage


def overwrite(directory: Path) -> None:
    (directory / "catalog.sqlite").write_bytes(b"not a database, for certain" * 1000)


@pytest.mark.parametrize("how", ["overwritten", "truncated", "other schema"])
async def test_a_damaged_catalog_is_set_aside_at_the_start_and_l2_starts_empty(
    tmp_path: Path, resets: Resets, how: str
) -> None:
    catalog = Catalog(tmp_path, on_reset=resets)
    await catalog.upsert(row_of())
    catalog.close()
    if how == "overwritten":
        overwrite(tmp_path)
    elif how == "truncated":
        (tmp_path / "catalog.sqlite").write_bytes((tmp_path / "catalog.sqlite").read_bytes()[:5000])
    else:
        with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    again = Catalog(tmp_path, on_reset=resets)
    assert resets.count == 1
    assert again.lookup(KEY) is None
    assert again.totals == {}
    assert (tmp_path / "catalog.sqlite.damaged").exists()
    await again.upsert(row_of(generation=2))
    assert again.lookup(KEY) is not None
    again.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM facts",
        "UPDATE facts SET acknowledge_from_ns = 'soon'",
        "UPDATE facts SET ended_cleanly = 1 - ended_cleanly",
        "UPDATE facts SET last_generation = 'seven'",
        "UPDATE totals SET entries = 2",
        "UPDATE totals SET stored_bytes = 'many'",
    ],
)
async def test_what_is_read_at_the_start_and_cannot_be_understood_is_damage(
    tmp_path: Path, resets: Resets, statement: str
) -> None:
    catalog = Catalog(tmp_path, on_reset=resets)
    await catalog.upsert(row_of())
    catalog.close()
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        assert db.execute(statement).rowcount == 1
    db.close()
    again = Catalog(tmp_path, on_reset=resets)
    assert resets.count == 1
    assert again.lookup(KEY) is None
    again.close()


async def test_a_catalog_that_proves_damaged_while_it_runs_is_set_aside(
    catalog: Catalog, tmp_path: Path, resets: Resets
) -> None:
    await catalog.upsert(row_of(generation=START_NS))
    catalog.close()
    running = Catalog(tmp_path, on_reset=resets)
    assert running.lookup(KEY) is not None
    overwrite(tmp_path)
    assert await invalidate(running, key_scope(KEY), 5) == []
    assert resets.count == 1
    assert running.lookup(KEY) is None
    assert running.totals == {}
    assert running.last_change_ns([key_scope(KEY)]) == 5
    # A generation that was handed out is not handed out again.
    assert running.last_generation == START_NS
    running.close()


async def test_a_reset_that_a_full_disk_refused_is_done_once_there_is_room(
    tmp_path: Path, resets: Resets
) -> None:
    with small_filesystem(tmp_path / "small", 4 << 20) as disk:
        catalog = Catalog(disk.path, on_reset=resets)
        await catalog.upsert(row_of())
        catalog.close()
        running = Catalog(disk.path, on_reset=resets)
        running.lookup(KEY)
        overwrite(disk.path)
        disk.fill()
        with pytest.raises(NotDurable):
            await invalidate(running, key_scope(KEY), 5)
        disk.free()
        try:
            assert await invalidate(running, key_scope(KEY), 5) == []
            assert running.lookup(KEY) is None
        finally:
            running.close()


async def test_a_reader_that_could_not_reopen_after_a_reset_tries_again(
    catalog: Catalog, tmp_path: Path, resets: Resets
) -> None:
    catalog.close()
    running = Catalog(tmp_path, on_reset=resets)
    running.lookup(KEY)
    overwrite(tmp_path)
    await running.upsert(row_of())
    assert resets.count == 1
    path = tmp_path / "catalog.sqlite"
    path.rename(tmp_path / "away")
    with pytest.raises(NotDurable):
        running.lookup(KEY)
    (tmp_path / "away").rename(path)
    try:
        assert running.lookup(KEY) is not None
    finally:
        running.close()


async def test_a_row_that_cannot_be_understood_is_damage_and_not_a_defect(
    catalog: Catalog, tmp_path: Path
) -> None:
    """SQLite has no checksums: it loads a text with a flipped bit without an error."""
    await catalog.upsert(row_of())
    with sqlite3.connect(tmp_path / "catalog.sqlite") as db:
        db.execute("UPDATE entries SET stamps = '[[' || substr(stamps, 2)")
    db.close()
    with pytest.raises(CorruptEntry):
        catalog.lookup(KEY)
    assert catalog.hottest(10) == []
    # Eviction and expiry read rows too, and must skip this one.
    await catalog.evict(1)
    await catalog.expire(1 << 62, 10)
    await catalog.upsert(row_of(generation=2))
    assert catalog.lookup(KEY) is not None


async def test_a_directory_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        Catalog(tmp_path / "file", on_reset=Resets())


# ---- full disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    with small_filesystem(tmp_path / "small", 4 << 20) as disk:
        yield disk


async def test_a_full_disk_refuses_writes_and_keeps_earlier_rows(
    small_disk: SmallFilesystem, resets: Resets
) -> None:
    catalog = Catalog(small_disk.path, on_reset=resets)
    row = row_of()
    await catalog.upsert(row)
    small_disk.fill()
    for write in (
        lambda: catalog.upsert(row_of(OTHER, 2)),
        lambda: catalog.delete([Location(KEY, 1)]),
        lambda: invalidate(catalog, key_scope(KEY), 5),
    ):
        with pytest.raises(NotDurable):
            await write()
    assert catalog.lookup(KEY) == row
    assert catalog.lookup(OTHER) is None
    small_disk.free()
    assert await invalidate(catalog, key_scope(KEY), 5) == [Location(KEY, 1)]
    catalog.close()
    assert resets.count == 0


async def test_a_restart_on_a_full_disk_keeps_a_sound_catalog(
    small_disk: SmallFilesystem, resets: Resets
) -> None:
    catalog = Catalog(small_disk.path, on_reset=resets)
    await catalog.upsert(row_of())
    catalog.close()
    small_disk.fill()
    with contextlib.suppress(ConfigError):  # it may start or refuse, but no row may be lost
        Catalog(small_disk.path, on_reset=resets).close()
    small_disk.free()
    again = Catalog(small_disk.path, on_reset=resets)
    assert resets.count == 0
    assert again.lookup(KEY) is not None
    again.close()
