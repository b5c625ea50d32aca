"""Is a catalog row ever served that damage has changed, and does an invalidation need the row's
index?

Promises 1 and 2. The tests change rows behind the engine's back, as a flipped bit would.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from cachesvc.core.errors import Aborted
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "alice")  # the same id as PERSON, and another subject
COLUMNS = {
    "owner": "'eve'",
    "generation": "generation + 1",
    "size_bytes": "size_bytes + 1",
    "checksum": "checksum + 1",
    "stamps": "replace(stamps, 'e', 'f')",
    "begun_ns": "begun_ns + 1",
    "origin_ns": "origin_ns + (1 << 50)",
    "confirmed_ns": "confirmed_ns + (1 << 50)",
    "base_ttl_s": "base_ttl_s * 4",
    "explicit_ttl_s": "1e9",
    "kind_version": "'other'",
    "as_of_ns": "1",
    "stored_bytes": "stored_bytes + 4096",
    "accesses": "accesses + (1 << 40)",
    "last_access_ns": "last_access_ns + 1",
    "expires_ns": "expires_ns + (1 << 50)",
    "row_sum": "row_sum + 1",
    "use_sum": "NULL",
}
TYPES = ("namespace", "id", "owner", "generation", "checksum", "stamps", "begun_ns", "accesses")


async def fill(house: EngineHouse, *keys: EntryKey) -> None:
    """Put version 1 into L2 only."""
    for key in keys:
        house.upload(key, 1, "alice")
        await house.get(key, "alice")
    await house.settle()
    for key in keys:
        house.memory.remove(key, Leaving.BYTES_LIMIT)


def change(house: EngineHouse, statement: str, *values: object) -> None:
    """Change the catalog behind the engine's back."""
    with closing(sqlite3.connect(house.state_dir / "catalog.sqlite")) as db, db:
        assert db.execute(statement, values).rowcount == 1


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_row_with_another_value_is_a_counted_miss_and_filled_again(
    house: EngineHouse, column: str
) -> None:
    await fill(house, PERSON)
    change(house, f"UPDATE entries SET {column} = {COLUMNS[column]}")
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    await house.settle()
    assert house.metrics.value("damaged_entries") == 1
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert (await house.get(PERSON)).tier == "disk"
    assert len(house.files()) == 1
    assert house.disk.totals[PERSON.namespace].entries == 1


@pytest.mark.parametrize("column", TYPES)
async def test_a_value_of_another_type_costs_the_entry_and_nothing_else(
    house: EngineHouse, column: str
) -> None:
    """A text becomes a blob, a number becomes a text."""
    await fill(house, PERSON)
    change(house, f"UPDATE entries SET {column} = CAST(CAST({column} AS TEXT) AS BLOB)")
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    await house.settle()
    for scope in (Scope(ScopeKind.OWNER, "alice"), Scope(ScopeKind.EVERYTHING)):
        await house.cache.invalidate(scope)
    house.upload(PERSON, 3)
    assert await house.version(PERSON) == 3
    await house.settle()
    await house.cache.upkeep.disk_step()
    await house.restart()
    assert await house.version(PERSON) == 3


@pytest.mark.parametrize("text", ["owner", "kind_version", "stamps"])
async def test_bytes_that_are_no_text_cost_the_entry_and_nothing_else(
    house: EngineHouse, text: str
) -> None:
    await fill(house, PERSON)
    change(house, f"UPDATE entries SET {text} = CAST(x'ff80' AS TEXT)")
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    assert house.metrics.value("damaged_entries") == 1


# ---- invalidations


def invalidations(house: EngineHouse) -> dict[str, Scope]:
    return {
        "key": key_scope(PERSON),
        "user": subject_scope(Subject.USER, "alice", house.kinds),
        "owner": Scope(ScopeKind.OWNER, "alice"),
        "namespace": Scope(ScopeKind.NAMESPACE, PERSON.namespace),
        "everything": Scope(ScopeKind.EVERYTHING),
    }


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("scope", ["key", "user", "owner", "namespace", "everything"])
async def test_a_row_that_its_invalidation_did_not_reach_is_not_served(
    house: EngineHouse, scope: str, *, restarts: bool
) -> None:
    """A damaged index hides the row from the DELETE; the test puts the row back instead."""
    await fill(house, PERSON)
    with closing(sqlite3.connect(house.state_dir / "catalog.sqlite")) as db:
        (row,) = db.execute("SELECT * FROM entries").fetchall()
    (file,) = house.files()
    data = file.read_bytes()
    await house.cache.invalidate(invalidations(house)[scope])
    await house.settle()
    marks = ", ".join("?" * len(row))
    change(house, f"INSERT INTO entries VALUES ({marks})", *row)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    house.upload(PERSON, 2)
    if restarts:
        await house.restart()
    assert await house.version(PERSON) == 2
    await house.settle()
    assert len(house.files()) == 1


async def test_an_invalidation_by_owner_does_not_need_its_index(house: EngineHouse) -> None:
    await fill(house, PERSON)
    with closing(sqlite3.connect(house.state_dir / "catalog.sqlite")) as db, db:
        # Put the index's root on that of an empty table: the index no longer finds the row.
        db.execute("CREATE TABLE nobody (owner, namespace, id)")
        db.execute("CREATE INDEX empty ON nobody (owner, namespace, id)")
        db.execute("PRAGMA writable_schema = ON")
        db.execute(
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master"
            " WHERE name = 'empty') WHERE name = 'entries_by_owner'"
        )
    await house.restart()
    await house.cache.invalidate(Scope(ScopeKind.OWNER, "alice"))
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2


async def test_an_invalidation_of_a_person_leaves_a_garment_of_the_same_id(
    house: EngineHouse,
) -> None:
    await fill(house, PERSON, GARMENT)
    await house.cache.invalidate(invalidations(house)["user"])
    served = await house.get(GARMENT, "alice", may_ask_origin=False)
    assert served.tier == "disk"


async def test_what_is_stored_after_an_invalidation_is_served_from_l2_whatever_the_clock_did(
    house: EngineHouse,
) -> None:
    """The engine compares generations, not times."""
    await fill(house, PERSON)
    await house.cache.invalidate(invalidations(house)["everything"])
    house.clock.step_wall(-3600)
    house.upload(PERSON, 2)
    await house.get(PERSON)
    await house.restart()
    house.clock.step_wall(3600)
    house.clock.restart()
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2


# ---- recorded changes


@pytest.mark.parametrize(
    "damage", ["changed_ns = 1", "up_to_generation = 0", "changed_ns = 'then'", "namespaces = 'x'"]
)
async def test_a_spoilt_record_of_a_change_counts_as_one_just_now(
    house: EngineHouse, damage: str
) -> None:
    await fill(house, PERSON)
    before_ns = house.clock.read().wall_ns
    house.clock.advance(10)
    await house.cache.invalidate(invalidations(house)["user"])
    change(house, f"UPDATE changes SET {damage}")
    house.clock.advance(10)
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=before_ns)
    assert failed.value.reason == "PUT_OUTDATED"
    house.clock.advance(10)
    await house.put(PERSON, 2, as_of_ns=house.clock.read().wall_ns)
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert (await house.get(PERSON, may_ask_origin=False)).tier == "disk"
    assert await house.version(PERSON) == 2


LOST_RECORDS = {
    "of another value": "UPDATE changes SET value = 'alicf' WHERE scope = 'user'",
    "of another scope": "UPDATE changes SET scope = 'usar' WHERE scope = 'user'",
    "of no text": "UPDATE changes SET value = CAST(x'ff' AS TEXT) WHERE scope = 'user'",
    "gone": "DELETE FROM changes WHERE scope = 'user'",
    "gone, and one is left over": "UPDATE recorded SET changes = changes + 1",
}


@pytest.mark.parametrize("damage", LOST_RECORDS)
async def test_a_record_of_a_change_that_cannot_be_found_counts_as_a_change_of_everything(
    house: EngineHouse, damage: str
) -> None:
    """A bit of the record's key, or of its page, is flipped: nothing says whose change it was."""
    await fill(house, PERSON, GARMENT)
    house.clock.advance(10)
    before_ns = house.clock.read().wall_ns
    await house.cache.invalidate(invalidations(house)["user"])
    await house.cache.invalidate(Scope(ScopeKind.OWNER, "bob"))
    house.clock.advance(10)
    await house.restart()
    change(house, LOST_RECORDS[damage])
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 1, as_of_ns=before_ns)
    assert failed.value.reason == "PUT_OUTDATED"
    assert house.metrics.value("damaged_entries") == 1
    house.clock.advance(10)
    await house.put(PERSON, 2, as_of_ns=house.clock.read().wall_ns)
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 2
    assert (await house.get(GARMENT, "alice", may_ask_origin=False)).tier == "disk"
    await house.restart()  # the start repairs the catalog
    await house.put(PERSON, 3, as_of_ns=house.clock.read().wall_ns)
    assert house.metrics.value("damaged_entries") == 0


async def test_a_record_that_lost_a_bit_of_its_time_is_not_forgotten_as_an_old_one(
    house: EngineHouse,
) -> None:
    before_ns = house.clock.read().wall_ns
    house.clock.advance(10)
    await house.cache.invalidate(invalidations(house)["user"])
    change(house, "UPDATE changes SET changed_ns = changed_ns & ((1 << 60) - 1)")
    house.clock.advance(10)
    await house.catalog.forget_changes(before_ns - 1)
    with pytest.raises(Aborted):
        await house.put(PERSON, 1, as_of_ns=before_ns)


async def test_a_spoilt_record_hides_older_rows_once_and_is_mended(house: EngineHouse) -> None:
    await house.cache.invalidate(invalidations(house)["everything"])
    await fill(house, PERSON)
    change(house, "UPDATE changes SET up_to_generation = up_to_generation + (1 << 60)")
    house.upload(PERSON, 2)
    assert await house.version(PERSON) == 2
    await house.settle()
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert (await house.get(PERSON)).tier == "disk"
    assert house.metrics.value("damaged_entries") == 1
