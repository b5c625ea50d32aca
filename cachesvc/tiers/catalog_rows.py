"""The catalog's schema and statements: plain functions on a connection, inside its transaction.

`catalog.py` owns the connections and threads. Conditions and column lists in the SQL are
constants of this module; values travel as parameters only. The format is docs/on-disk-format.md.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.keys import EntryKey
from cachesvc.core.origin import OriginStamp
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.tiers.disk_files import Location, stored_bytes

SCHEMA_VERSION = 1
SCHEMA = """
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
_META_COLUMNS = (
    "namespace, id, owner, generation, size_bytes, checksum, stamps, begun_ns, origin_ns,"
    " confirmed_ns, base_ttl_s, explicit_ttl_s, kind_version, as_of_ns"
)
COLUMNS = f"{_META_COLUMNS}, accesses, last_access_ns"


@dataclass(frozen=True, slots=True)
class Total:
    """What one namespace holds, in bytes on disk."""

    entries: int = 0
    stored_bytes: int = 0


class UnknownSchema(sqlite3.DatabaseError):
    """Another version of the daemon wrote it."""


class UnreadableRow(sqlite3.DatabaseError):
    """SQLite has no checksums: a flipped bit in a text loads without a word."""


def is_damage(exc: sqlite3.Error) -> bool:
    """Tell a damaged file from a full disk, a lock or an I/O error, which pass."""
    if isinstance(exc, UnknownSchema | UnreadableRow):
        return True
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return code == sqlite3.SQLITE_ERROR and "no such" in str(exc)  # a table or column is gone


def location_of(row: tuple[Any, ...]) -> Location:
    namespace, entry_id, generation = row
    return Location(EntryKey(namespace, entry_id), generation)


def row_of(found: tuple[Any, ...]) -> Row:
    try:
        return _parsed_row(found)
    except (TypeError, ValueError) as exc:
        raise UnreadableRow("a row cannot be understood") from exc


def _parsed_row(found: tuple[Any, ...]) -> Row:
    namespace, entry_id, owner, generation, size_bytes, checksum, stamps, *rest = found
    begun_ns, origin_ns, confirmed_ns, base_ttl_s, explicit_ttl_s, version, as_of_ns, *use = rest
    meta = EntryMeta(
        key=EntryKey(namespace, entry_id),
        owner=owner,
        generation=generation,
        size_bytes=size_bytes,
        checksum=checksum,
        stamps=tuple(OriginStamp(*stamp) for stamp in json.loads(stamps)),
        begun_ns=begun_ns,
        origin_ns=origin_ns,
        confirmed_ns=confirmed_ns,
        base_ttl_s=base_ttl_s,
        explicit_ttl_s=explicit_ttl_s,
        kind_version=version,
        as_of_ns=as_of_ns,
    )
    return Row(meta, *use)


def condition_of(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """Return the SQL condition for `scope`. Values travel as parameters only."""
    match scope.kind:
        case ScopeKind.USER | ScopeKind.CLOTHING:
            marks = ", ".join("?" * len(scope.namespaces))
            return f"id = ? AND namespace IN ({marks})", (scope.value, *scope.namespaces)
        case ScopeKind.KEY:
            namespace, _, entry_id = scope.value.partition("/")
            return "namespace = ? AND id = ?", (namespace, entry_id)
        case ScopeKind.OWNER:
            return "owner = ?", (scope.value,)
        case ScopeKind.NAMESPACE:
            return "namespace = ?", (scope.value,)
        case ScopeKind.EVERYTHING:
            return "TRUE", ()


def totals(db: sqlite3.Connection) -> dict[str, Total]:
    found = db.execute("SELECT namespace, entries, stored_bytes FROM totals").fetchall()
    if not all(isinstance(value, int) for _, *rest in found for value in rest):
        raise UnreadableRow("totals cannot be understood")
    return {namespace: Total(*rest) for namespace, *rest in found}


def last_generation(db: sqlite3.Connection) -> int:
    match db.execute("SELECT generation FROM last_generation").fetchone():
        case (int() as generation,):
            return generation
    raise UnreadableRow("last_generation cannot be understood")


def last_boot(db: sqlite3.Connection) -> tuple[bytes, bool, int]:
    """Return its boot id, whether it ended cleanly, and from when it might acknowledge."""
    sql = "SELECT boot_id, ended_cleanly, acknowledge_from_ns FROM last_boot"
    match db.execute(sql).fetchone():
        case (bytes() as boot_id, int() as ended_cleanly, int() as from_ns):
            return boot_id, bool(ended_cleanly), from_ns
    raise UnreadableRow("last_boot cannot be understood")


def _add_to_total(db: sqlite3.Connection, namespace: str, entries: int, size: int) -> None:
    db.execute(
        "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (namespace) DO UPDATE SET"
        " entries = entries + excluded.entries,"
        " stored_bytes = stored_bytes + excluded.stored_bytes",
        (namespace, entries, size),
    )


def upsert(db: sqlite3.Connection, row: Row) -> Location | None:
    """Return the file of the row that it replaced: never `row`'s own, if this runs again."""
    meta = row.meta
    replaced = db.execute(
        "DELETE FROM entries WHERE namespace = ? AND id = ?"
        " RETURNING namespace, id, generation, stored_bytes",
        meta.key,
    ).fetchall()
    size = stored_bytes(meta.size_bytes)
    db.execute(
        f"INSERT INTO entries ({COLUMNS}, stored_bytes, expires_ns)"  # noqa: S608 constants
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *meta.key,
            meta.owner,
            meta.generation,
            meta.size_bytes,
            meta.checksum,
            _stamps_text(meta),
            meta.begun_ns,
            meta.origin_ns,
            meta.confirmed_ns,
            meta.base_ttl_s,
            meta.explicit_ttl_s,
            meta.kind_version,
            meta.as_of_ns,
            row.accesses,
            row.last_access_ns,
            size,
            meta.expires_ns(row.accesses),
        ),
    )
    freed = sum(r[3] for r in replaced)
    _add_to_total(db, meta.key.namespace, 1 - len(replaced), size - freed)
    db.execute("UPDATE last_generation SET generation = max(generation, ?)", (meta.generation,))
    if meta.as_of_ns:
        # It outlives the row: an older Put is refused also when this one has expired.
        record_change(db, key_scope(meta.key), meta.as_of_ns)
    older = [location_of(r[:3]) for r in replaced if r[2] != meta.generation]
    return older[0] if older else None


def delete_one(db: sqlite3.Connection, at: Location) -> bool:
    deleted = db.execute(
        "DELETE FROM entries WHERE namespace = ? AND id = ? AND generation = ?"
        " RETURNING stored_bytes",
        (*at.key, at.generation),
    ).fetchall()
    for (size,) in deleted:
        _add_to_total(db, at.key.namespace, -1, -size)
    return bool(deleted)


def invalidate(db: sqlite3.Connection, scope: Scope, changed_ns: int) -> list[Location]:
    where, values = condition_of(scope)
    deleted = db.execute(
        f"DELETE FROM entries WHERE {where}"  # noqa: S608 conditions are constants
        " RETURNING namespace, id, generation, stored_bytes",
        values,
    ).fetchall()
    entries, sizes = Counter[str](), Counter[str]()
    for namespace, _, _, size in deleted:
        entries[namespace] += 1
        sizes[namespace] += size
    # Once for each namespace: `everything` may be a million rows, and writes wait behind it.
    for namespace, count in entries.items():
        _add_to_total(db, namespace, -count, -sizes[namespace])
    record_change(db, scope, changed_ns)
    return [location_of(row[:3]) for row in deleted]


def record_change(db: sqlite3.Connection, scope: Scope, changed_ns: int) -> None:
    db.execute(
        "INSERT INTO changes VALUES (?, ?, ?) ON CONFLICT (scope, value) DO UPDATE SET"
        " changed_ns = max(changed_ns, excluded.changed_ns)",
        (scope.kind.value, scope.value, changed_ns),
    )


def evict(db: sqlite3.Connection, bytes_to_free: int, limit: int) -> list[Row]:
    victims: list[Row] = []
    freed = 0
    sql = f"SELECT {COLUMNS} FROM entries ORDER BY last_access_ns LIMIT ?"  # noqa: S608
    for found in db.execute(sql, (limit,)):
        if freed >= bytes_to_free:
            break
        row = row_of(found)
        victims.append(row)
        freed += stored_bytes(row.meta.size_bytes)
    return _delete_rows(db, victims)


def expire(db: sqlite3.Connection, steady_ns: int, limit: int) -> list[Row]:
    sql = f"SELECT {COLUMNS} FROM entries WHERE expires_ns <= ? ORDER BY expires_ns LIMIT ?"  # noqa: S608
    return _delete_rows(db, [row_of(found) for found in db.execute(sql, (steady_ns, limit))])


def _delete_rows(db: sqlite3.Connection, rows: list[Row]) -> list[Row]:
    for row in rows:
        delete_one(db, Location(row.meta.key, row.meta.generation))
    return rows


def confirm(db: sqlite3.Connection, row: Row) -> None:
    meta = row.meta
    db.execute(
        "UPDATE entries SET stamps = ?, origin_ns = ?, confirmed_ns = ?, base_ttl_s = ?,"
        " expires_ns = ? WHERE namespace = ? AND id = ? AND generation = ?",
        (
            _stamps_text(meta),
            meta.origin_ns,
            meta.confirmed_ns,
            meta.base_ttl_s,
            meta.expires_ns(row.accesses),
            *meta.key,
            meta.generation,
        ),
    )


def _stamps_text(meta: EntryMeta) -> str:
    return json.dumps([(s.object_key, s.etag, s.last_modified_s) for s in meta.stamps])


def record_accesses(db: sqlite3.Connection, used: list[Row]) -> None:
    db.executemany(
        "UPDATE entries SET accesses = ?, last_access_ns = ?, expires_ns = ?"
        " WHERE namespace = ? AND id = ? AND generation = ?",
        [
            (
                row.accesses,
                row.last_access_ns,
                row.meta.expires_ns(row.accesses),
                *row.meta.key,
                row.meta.generation,
            )
            for row in used
        ],
    )
