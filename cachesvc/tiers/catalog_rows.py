"""The statements on the catalog's entries: plain functions on a connection, inside its transaction.

`catalog.py` owns the connections and threads, `catalog_schema.py` the columns. Conditions and
column lists in the SQL are constants; values travel as parameters only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from cachesvc.core.entry import Row
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Change, Scope, ScopeKind, key_scope
from cachesvc.tiers import catalog_changes as changes
from cachesvc.tiers.catalog_damage import UnreadableRow
from cachesvc.tiers.catalog_facts import add_to_total, recount
from cachesvc.tiers.catalog_schema import COLUMNS, MARKS, row_of, use_sum_of, values_of
from cachesvc.tiers.disk_files import Location, stored_bytes
from cachesvc_format.names import is_id


def condition_of(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """Return the SQL condition for `scope`. Values travel as parameters only."""
    match scope.kind:
        case ScopeKind.USER:
            # The first release also stored a person's entry from another person's prefix: an
            # invalidation of either person deletes it. Each condition has its index.
            marks, values = ", ".join("?" * len(scope.namespaces)), (scope.value, *scope.namespaces)
            by_id, by_owner = (f"{of} = ? AND namespace IN ({marks})" for of in ("id", "owner"))
            return f"(({by_id}) OR ({by_owner}))", (*values, *values)
        case ScopeKind.CLOTHING:
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


def upsert(db: sqlite3.Connection, row: Row, lost: Change) -> Location | None:
    """Return the replaced row's file, or None.

    Safe to repeat after a failed batch: it never returns `row`'s own file.
    """
    meta = row.meta
    replaced = db.execute(
        f"DELETE FROM entries WHERE namespace = ? AND id = ? RETURNING {_LEFT}",  # noqa: S608
        meta.key,
    ).fetchall()
    db.execute(
        f"INSERT INTO entries ({COLUMNS}) VALUES ({MARKS})",  # noqa: S608 constants
        values_of(row),
    )
    _subtract(db, replaced)
    add_to_total(db, meta.key.namespace, 1, stored_bytes(meta.size_bytes))
    if meta.as_of_ns:
        # The change outlives the row: an older Put is refused even after the row has expired.
        change = Change(key_scope(meta.key), meta.as_of_ns, meta.generation - 1)
        changes.record(db, change, lost)
    older = [at for at in _locations(replaced) if at.generation != meta.generation]
    return older[0] if older else None


# The columns returned of a deleted row: where its file is, and its part of the totals.
_LEFT = "namespace, id, generation, stored_bytes"


def _locations(deleted: list[tuple[Any, ...]]) -> list[Location]:
    """Return the rows' files, but for names that a flipped bit made: no file of ours has them."""
    return [
        Location(EntryKey(namespace, entry_id), generation)
        for namespace, entry_id, generation, _ in deleted
        if _is_ours(namespace, entry_id, generation)
    ]


def _is_ours(namespace: Any, entry_id: Any, generation: Any) -> bool:
    are_texts = isinstance(namespace, str) and isinstance(entry_id, str)
    return are_texts and is_id(namespace) and is_id(entry_id) and isinstance(generation, int)


def _subtract(db: sqlite3.Connection, deleted: list[tuple[Any, ...]]) -> None:
    """Subtract deleted rows from the totals.

    Once for each namespace: EVERYTHING may be a million rows, and other writes wait.
    """
    entries, sizes = Counter[str](), Counter[str]()
    for namespace, entry_id, generation, size in deleted:
        if not (_is_ours(namespace, entry_id, generation) and isinstance(size, int)):
            recount(db)
            return
        entries[namespace] += 1
        sizes[namespace] += size
    for namespace, count in entries.items():
        add_to_total(db, namespace, -count, -sizes[namespace])


def delete_one(db: sqlite3.Connection, at: Location) -> bool:
    sql = f"DELETE FROM entries WHERE namespace = ? AND id = ? AND generation = ? RETURNING {_LEFT}"  # noqa: S608
    deleted = db.execute(sql, (*at.key, at.generation)).fetchall()
    _subtract(db, deleted)
    return bool(deleted)


def invalidate(db: sqlite3.Connection, change: Change, lost: Change) -> list[Location]:
    """Delete what `change` covers, and record it."""
    where, values = _covered_by(change)
    sql = f"DELETE FROM entries WHERE {where} RETURNING {_LEFT}"  # noqa: S608 constants
    deleted = db.execute(sql, values).fetchall()
    _subtract(db, deleted)
    changes.record(db, change, lost)
    return _locations(deleted)


def locations(db: sqlite3.Connection, change: Change) -> list[Location]:
    """Return the files of the rows that `change` covers."""
    where, values = _covered_by(change)
    sql = f"SELECT {_LEFT} FROM entries WHERE {where}"  # noqa: S608 constants
    return _locations(db.execute(sql, values).fetchall())


def _covered_by(change: Change) -> tuple[str, tuple[str | int, ...]]:
    where, values = condition_of(change.scope)
    return f"{where} AND generation <= ?", (*values, change.up_to_generation)


def distrust(db: sqlite3.Connection, key: EntryKey, lost: Change) -> list[Location]:
    """Delete the row of `key` if it is spoilt, or if a recorded change covers it.

    Returns the file of a deleted row that was not spoilt. Raises UnreadableRow if the catalog
    itself is spoilt.
    """
    found = _one(db, key)
    if found is None:
        return []
    try:
        meta = row_of(found).meta
    except UnreadableRow:
        db.execute("DELETE FROM entries WHERE namespace = ? AND id = ?", key)
        # A spoilt row does not tell its part of the totals.
        recount(db)
        return []
    changes.replace_spoilt(db, changes.scopes_of_row(key, meta.owner), lost)
    if meta.generation > changes.removed_up_to(db, key, meta.owner):
        return []
    at = Location(key, meta.generation)
    delete_one(db, at)
    return [at]


def _one(db: sqlite3.Connection, key: EntryKey) -> tuple[Any, ...] | None:
    """Return the stored values of `key`.

    Raises UnreadableRow: a spoilt page of the tree leads to another key's row. Then no row of
    the catalog can be trusted.
    """
    found: tuple[Any, ...] | None = db.execute(_ONE, key).fetchone()
    if found is not None and found[:2] != tuple(key):
        raise UnreadableRow("the row of another key was found")
    return found


_ONE = f"SELECT {COLUMNS} FROM entries WHERE namespace = ? AND id = ?"  # noqa: S608 constants


def trusted(db: sqlite3.Connection, key: EntryKey) -> Row | None:
    """Return the row of `key`, None if there is none.

    Raises UnreadableRow: the row is spoilt, or a change covers it; `distrust` deletes it.
    """
    found = _one(db, key)
    if found is None:
        return None
    row = row_of(found)
    if row.meta.generation <= changes.removed_up_to(db, key, row.meta.owner):
        raise UnreadableRow("a row outlived its invalidation")
    return row


def evict(db: sqlite3.Connection, bytes_to_free: int, limit: int) -> list[Row]:
    victims: list[Row] = []
    freed = 0
    sql = f"SELECT {COLUMNS} FROM entries ORDER BY last_access_ns LIMIT ?"  # noqa: S608
    for found in db.execute(sql, (limit,)).fetchall():
        if freed >= bytes_to_free:
            break
        for row in _readable(db, found):
            victims.append(row)
            freed += stored_bytes(row.meta.size_bytes)
    return _delete_rows(db, victims)


def expire(db: sqlite3.Connection, steady_ns: int, limit: int) -> list[Row]:
    sql = f"SELECT {COLUMNS} FROM entries WHERE expires_ns <= ? ORDER BY expires_ns LIMIT ?"  # noqa: S608
    expired = db.execute(sql, (steady_ns, limit)).fetchall()
    return _delete_rows(db, [row for found in expired for row in _readable(db, found)])


def _readable(db: sqlite3.Connection, found: tuple[Any, ...]) -> list[Row]:
    """Return the row, or delete a spoilt one. Raises UnreadableRow if it cannot be deleted."""
    with contextlib.suppress(UnreadableRow):
        return [row_of(found)]
    if not all(isinstance(value, str) for value in found[:2]):
        raise UnreadableRow("a row cannot be named")
    namespace, entry_id = (value.encode("utf-8", "surrogateescape") for value in found[:2])
    sql = "DELETE FROM entries WHERE namespace = CAST(? AS TEXT) AND id = CAST(? AS TEXT)"
    if not db.execute(sql, (namespace, entry_id)).rowcount:
        raise UnreadableRow("a row cannot be deleted")
    recount(db)
    return []


def readable_rows(found: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
    """Yield the rows that are not spoilt."""
    for values in found:
        with contextlib.suppress(UnreadableRow):
            yield row_of(values)


def _delete_rows(db: sqlite3.Connection, rows: list[Row]) -> list[Row]:
    for row in rows:
        delete_one(db, Location(row.meta.key, row.meta.generation))
    return rows


def confirm(db: sqlite3.Connection, renewed: Row) -> None:
    """Store what the origin confirmed of the same generation; its stored uses stay."""
    meta = renewed.meta
    found = _one(db, meta.key)
    if found is None or found[3] != meta.generation:
        return
    for stored in _readable(db, found):
        _replace(db, Row(meta, stored.accesses, stored.last_access_ns))


def _replace(db: sqlite3.Connection, row: Row) -> None:
    db.execute(
        f"REPLACE INTO entries ({COLUMNS}) VALUES ({MARKS})",  # noqa: S608 constants
        values_of(row),
    )


def record_accesses(db: sqlite3.Connection, used: list[Row]) -> None:
    db.executemany(
        "UPDATE entries SET accesses = ?, last_access_ns = ?, expires_ns = ?, use_sum = ?"
        " WHERE namespace = ? AND id = ? AND generation = ?",
        [_use_of(row) for row in used],
    )


def _use_of(row: Row) -> tuple[Any, ...]:
    meta = row.meta
    at = (*meta.key, meta.generation)
    use = (row.accesses, row.last_access_ns, row.expires_ns)
    return (*use, use_sum_of(*at, *use), *at)


def add_sums(db: sqlite3.Connection, after: EntryKey, limit: int) -> EntryKey | None:
    """Add sums to rows of the first release: at most `limit` of those behind `after`.

    Returns the last of them, None if there are no more.
    """
    sql = (
        f"SELECT {COLUMNS} FROM entries WHERE (namespace, id) > (?, ?) AND row_sum IS NULL"  # noqa: S608
        " ORDER BY namespace, id LIMIT ?"
    )
    found = db.execute(sql, (*after, limit)).fetchall()
    for values in found:
        for row in _readable(db, values):
            _replace(db, row)
            after = row.meta.key
    return after if found else None
