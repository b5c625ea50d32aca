"""The catalog's tables, as a list of migrations, and how an entry is a row.

Opening a catalog of an earlier version migrates it to the newest in one transaction: a crash
in the middle leaves the earlier version. Only newer versions are unknown.

A column costs a step in MIGRATIONS, a line in `_COLUMNS` and an argument in `_parsed_row`. The
sum of a row has to leave out the value that the step gives to older rows, as their sums do.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, NamedTuple

from cachesvc.core.checksum import checksum
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.keys import EntryKey
from cachesvc.core.origin import OriginStamp
from cachesvc.tiers.catalog_damage import UnknownSchema, UnreadableRow
from cachesvc.tiers.disk_files import stored_bytes

_FIRST_RELEASE = """
CREATE TABLE entries (
    namespace TEXT NOT NULL, id TEXT NOT NULL, owner TEXT NOT NULL,
    generation INTEGER NOT NULL, size_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL, stamps TEXT NOT NULL,
    begun_ns INTEGER NOT NULL, origin_ns INTEGER NOT NULL, confirmed_ns INTEGER NOT NULL,
    base_ttl_s REAL NOT NULL, explicit_ttl_s REAL, kind_version TEXT NOT NULL,
    as_of_ns INTEGER NOT NULL,
    accesses INTEGER NOT NULL, last_access_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) WITHOUT ROWID;
CREATE INDEX entries_by_use ON entries (last_access_ns);
CREATE INDEX entries_by_expiry ON entries (expires_ns);
CREATE INDEX entries_by_owner ON entries (owner);
CREATE TABLE totals (
    namespace TEXT PRIMARY KEY, entries INTEGER NOT NULL, stored_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE changes (
    scope TEXT NOT NULL, value TEXT NOT NULL, changed_ns INTEGER NOT NULL,
    PRIMARY KEY (scope, value)
) WITHOUT ROWID;
CREATE TABLE last_generation (generation INTEGER NOT NULL);
INSERT INTO last_generation VALUES (0);
CREATE TABLE last_boot (
    boot_id BLOB NOT NULL, ended_cleanly INTEGER NOT NULL, acknowledge_from_ns INTEGER NOT NULL
);
INSERT INTO last_boot VALUES (x'', 0, 0);
"""
# Sums are NULL in rows of the first release, until `add_sums` has come to them.
_CHECKSUMS = """
ALTER TABLE entries ADD COLUMN row_sum INTEGER;
ALTER TABLE entries ADD COLUMN use_sum INTEGER;
ALTER TABLE changes ADD COLUMN up_to_generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN namespaces TEXT NOT NULL DEFAULT '';
ALTER TABLE changes ADD COLUMN row_sum INTEGER;
ALTER TABLE totals ADD COLUMN row_sum INTEGER NOT NULL DEFAULT 0;
UPDATE totals SET row_sum = sum_of(namespace, entries, stored_bytes);
CREATE TABLE facts (
    catalog_id BLOB NOT NULL, commits INTEGER NOT NULL,
    last_write_ns INTEGER NOT NULL, last_write_steady_ns INTEGER NOT NULL,
    last_generation INTEGER NOT NULL, boot_id BLOB NOT NULL, ended_cleanly INTEGER NOT NULL,
    acknowledge_from_ns INTEGER NOT NULL, all_have_sums INTEGER NOT NULL, row_sum INTEGER NOT NULL
);
INSERT INTO facts
    SELECT randomblob(16), 0, 0, 0, generation, boot_id, ended_cleanly, acknowledge_from_ns,
        NOT EXISTS (SELECT 1 FROM entries) AND NOT EXISTS (SELECT 1 FROM changes), 0
    FROM last_generation, last_boot;
UPDATE facts SET row_sum = sum_of(
    catalog_id, commits, last_write_ns, last_write_steady_ns, last_generation, boot_id,
    ended_cleanly, acknowledge_from_ns, all_have_sums
);
DROP TABLE last_generation;
DROP TABLE last_boot;
CREATE TABLE recorded (changes INTEGER NOT NULL, row_sum INTEGER NOT NULL);
INSERT INTO recorded SELECT count(*), sum_of(count(*)) FROM changes;
"""
# The step from version n to n + 1 stands at index n. A released step is never changed.
MIGRATIONS = (_FIRST_RELEASE, _CHECKSUMS)
SCHEMA_VERSION = len(MIGRATIONS)


def sum_of(*values: object) -> int:
    """Return the checksum of a row's values and their types.

    It hashes Python's ASCII form of the tuple: 1, 1.0, '1', b'1' and None differ.
    """
    return checksum(ascii(values).encode())


def migrate(db: sqlite3.Connection) -> bool:
    """Bring the catalog to SCHEMA_VERSION, all steps in one transaction.

    Returns whether the catalog is new.

    Raises:
        UnknownSchema: the catalog is newer, or not ours.
    """
    if _version(db) == SCHEMA_VERSION:
        return False
    db.create_function("sum_of", -1, sum_of, deterministic=True)
    db.execute("BEGIN IMMEDIATE")
    try:
        steps = _missing_steps(db)
        for step in steps:
            _execute_all(db, step)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:  # whatever failed, half a migration must not stay
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    return steps == MIGRATIONS


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _missing_steps(db: sqlite3.Connection) -> tuple[str, ...]:
    version = _version(db)
    is_empty = db.execute("SELECT 1 FROM sqlite_master").fetchone() is None
    if not 0 <= version <= SCHEMA_VERSION or is_empty != (version == 0):
        raise UnknownSchema(f"schema version {version}")
    return MIGRATIONS[version:]


def _execute_all(db: sqlite3.Connection, script: str) -> None:
    """Run the statements of `script`; `executescript` would commit before the first."""
    for statement in script.split(";"):
        if statement.strip():
            db.execute(statement)


# ---- a row of `entries`


class _Column(NamedTuple):
    """`type` is what SQLite gives back; `of` returns what is stored of an entry."""

    name: str
    type: type | UnionType
    of: Callable[[Row], Any]


# An entry's own columns, in the order in which they are summed.
_OWN = (
    _Column("namespace", str, lambda row: row.meta.key.namespace),
    _Column("id", str, lambda row: row.meta.key.id),
    _Column("owner", str, lambda row: row.meta.owner),
    _Column("generation", int, lambda row: row.meta.generation),
    _Column("size_bytes", int, lambda row: row.meta.size_bytes),
    _Column("checksum", int, lambda row: row.meta.checksum),
    _Column("stamps", str, lambda row: _stamps_text(row.meta)),
    _Column("begun_ns", int, lambda row: row.meta.begun_ns),
    _Column("origin_ns", int, lambda row: row.meta.origin_ns),
    _Column("confirmed_ns", int, lambda row: row.meta.confirmed_ns),
    _Column("base_ttl_s", float, lambda row: float(row.meta.base_ttl_s)),
    _Column("explicit_ttl_s", float | None, lambda row: _float_or_none(row.meta.explicit_ttl_s)),
    _Column("kind_version", str, lambda row: row.meta.kind_version),
    _Column("as_of_ns", int, lambda row: row.meta.as_of_ns),
    _Column("stored_bytes", int, lambda row: stored_bytes(row.meta.size_bytes)),
)
# Columns that change with every use have a sum of their own, `use_sum`.
_OF_USE = (
    _Column("accesses", int, lambda row: row.accesses),
    _Column("last_access_ns", int, lambda row: row.last_access_ns),
    _Column("expires_ns", int, lambda row: row.expires_ns),
)
_NAMES = tuple(column.name for column in (*_OWN, *_OF_USE))
_TYPES = tuple(column.type for column in (*_OWN, *_OF_USE))
COLUMNS = ", ".join((*_NAMES, "row_sum", "use_sum"))
MARKS = ", ".join("?" * (len(_NAMES) + 2))


def row_of(found: Sequence[Any]) -> Row:
    """Return the row of these COLUMNS. Raises UnreadableRow if they are not as stored."""
    *values, row_sum, use_sum = found
    try:
        if row_sum is None:  # the first release wrote no sums
            _check_types(values)
        elif (row_sum, use_sum) != _sums_of(values):
            raise UnreadableRow("a row is not what was stored")
        return _parsed_row(dict(zip(_NAMES, values, strict=True)))
    except (TypeError, ValueError) as exc:
        raise UnreadableRow("a row cannot be understood") from exc


def values_of(row: Row) -> tuple[Any, ...]:
    """Return the COLUMNS of `row`, with the types that SQLite gives back."""
    values = [column.of(row) for column in (*_OWN, *_OF_USE)]
    return (*values, *_sums_of(values))


def _check_types(values: Sequence[Any]) -> None:
    """Raise TypeError or ValueError if a value cannot have been stored."""
    if not all(map(isinstance, values, _TYPES)):
        raise TypeError
    for value in values:
        if isinstance(value, str):
            value.encode()


def _sums_of(values: Sequence[Any]) -> tuple[int, int]:
    """Return `row_sum` and `use_sum` of a row's other values."""
    namespace, entry_id, _, generation = values[:4]
    own, of_use = values[: len(_OWN)], values[len(_OWN) :]
    return sum_of(*own), use_sum_of(namespace, entry_id, generation, *of_use)


def use_sum_of(namespace: str, entry_id: str, generation: int, *of_use: int) -> int:
    """Return `use_sum`; `of_use` is accesses, last_access_ns and expires_ns."""
    return sum_of(namespace, entry_id, generation, *of_use)


def _parsed_row(stored: dict[str, Any]) -> Row:
    meta = EntryMeta(
        key=EntryKey(stored["namespace"], stored["id"]),
        owner=stored["owner"],
        generation=stored["generation"],
        size_bytes=stored["size_bytes"],
        checksum=stored["checksum"],
        stamps=tuple(OriginStamp(*stamp) for stamp in json.loads(stored["stamps"])),
        begun_ns=stored["begun_ns"],
        origin_ns=stored["origin_ns"],
        confirmed_ns=stored["confirmed_ns"],
        base_ttl_s=stored["base_ttl_s"],
        explicit_ttl_s=stored["explicit_ttl_s"],
        kind_version=stored["kind_version"],
        as_of_ns=stored["as_of_ns"],
    )
    return Row(meta, stored["accesses"], stored["last_access_ns"], stored["expires_ns"])


def _stamps_text(meta: EntryMeta) -> str:
    return json.dumps([(s.object_key, s.etag, s.last_modified_s) for s in meta.stamps])


def _float_or_none(number: float | None) -> float | None:
    return None if number is None else float(number)
