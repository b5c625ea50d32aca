"""The recorded changes: when each scope's source last changed, and which rows are covered.

An invalidation deletes rows by an index, and SQLite trusts its indexes. So the invalidation
also records the last generation that it covers, and a row at or below it is never served: one
flipped bit spoils the index or the record, not both. The number of records is also stored,
because a record whose key lost a bit is not found. Plain functions on a connection.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Change, Scope, ScopeKind, key_scope
from cachesvc.tiers.catalog_damage import UnreadableRow
from cachesvc.tiers.catalog_schema import sum_of

_COLUMNS = "scope, value, changed_ns, up_to_generation, namespaces, row_sum"
_ONE = f"SELECT {_COLUMNS} FROM changes WHERE scope = ? AND value = ?"  # noqa: S608 constants
_OF_ONE_ROW = " UNION ALL ".join([_ONE] * 6)


class SpoiltChange(UnreadableRow):
    """A scope's record is lost, so a change has to be assumed."""


def record(db: sqlite3.Connection, change: Change, lost: Change) -> None:
    """Remember `change`. A scope's recorded time and generation never decrease.

    `lost` replaces a record of the same scope that turns out to be spoilt.
    """
    scope = change.scope
    try:
        known = _recorded(db, scope)
    except SpoiltChange:
        known = lost.changed_ns, lost.up_to_generation, ""
    changed_ns, up_to = change.changed_ns, change.up_to_generation
    # The namespaces of a user or clothing scope's id.
    namespaces = ",".join(sorted(scope.namespaces))
    if known is not None:
        changed_ns, up_to = max(changed_ns, known[0]), max(up_to, known[1])
        namespaces = _both(known, namespaces)
    names = scope.kind.value, scope.value
    _store(db, (*names, changed_ns, up_to, namespaces))
    if known is None:
        _add_to_count(db, 1)


def _store(db: sqlite3.Connection, values: tuple[Any, ...]) -> None:
    db.execute("REPLACE INTO changes VALUES (?, ?, ?, ?, ?, ?)", (*values, sum_of(*values)))


def _both(known: tuple[int, int, str], namespaces: str) -> str:
    _, up_to_generation, earlier = known
    if up_to_generation and not earlier:
        return ""  # the earlier change covers all namespaces
    return ",".join(sorted({*earlier.split(","), *namespaces.split(",")} - {""}))


def forget(db: sqlite3.Connection, before_ns: int, lost: Change) -> None:
    """Drop changes older than `before_ns`, and record one change of everything in their place.

    So a source older than `before_ns` is refused, even if the clock was ahead.
    """
    sql = f"DELETE FROM changes WHERE changed_ns < ? RETURNING {_COLUMNS}"  # noqa: S608 constants
    forgotten = db.execute(sql, (before_ns,)).fetchall()
    if not forgotten:
        return
    _add_to_count(db, -len(forgotten))
    # The time in a spoilt record may be too early.
    until_ns = before_ns if all(map(_is_sound, forgotten)) else lost.changed_ns
    record(db, Change(Scope(ScopeKind.EVERYTHING), until_ns), lost)


def lower(db: sqlite3.Connection, now_ns: int) -> int:
    """Lower the times of changes later than `now_ns` to it. Spoilt records stay as they are.

    Returns how many were later.
    """
    sql = f"SELECT {_COLUMNS} FROM changes WHERE changed_ns > ?"  # noqa: S608 constants
    later = db.execute(sql, (now_ns,)).fetchall()
    for found in later:
        with contextlib.suppress(SpoiltChange):
            _parsed(found, [found[:2]])
            scope, value, _, up_to_generation, namespaces, _ = found
            _store(db, (scope, value, now_ns, up_to_generation, namespaces))
    return len(later)


def last_change_ns(db: sqlite3.Connection, scopes: Iterable[Scope]) -> int:
    """Return the latest change of any of `scopes`, 0 if none. Raises SpoiltChange."""
    found = (_recorded(db, scope) for scope in scopes)
    return max((change[0] for change in found if change is not None), default=0)


def removed_up_to(db: sqlite3.Connection, key: EntryKey, owner: str) -> int:
    """Return the last generation of `key` that a change covers, 0 if none.

    Raises SpoiltChange.
    """
    wanted = [(scope.kind.value, scope.value) for scope in scopes_of_row(key, owner)]
    newest = 0
    for found in db.execute(_OF_ONE_ROW, [value for names in wanted for value in names]):
        _, up_to_generation, namespaces = _parsed(found, wanted)
        # A user and a garment may have the same id.
        if not namespaces or key.namespace in namespaces.split(","):
            newest = max(newest, up_to_generation)
    return newest


def _recorded(db: sqlite3.Connection, scope: Scope) -> tuple[int, int, str] | None:
    names = (scope.kind.value, scope.value)
    found = db.execute(_ONE, names).fetchone()
    return None if found is None else _parsed(found, [names])


def _parsed(found: tuple[Any, ...], wanted: Sequence[tuple[str, str]]) -> tuple[int, int, str]:
    """Return time, generation and namespaces of a record of one of the scopes `wanted`."""
    *values, row_sum = found
    _, _, changed_ns, up_to_generation, namespaces = values
    # The first release wrote no sums.
    if row_sum is not None and row_sum != sum_of(*values):
        raise SpoiltChange("a recorded change is not what was stored")
    # A spoilt page of the tree may lead to another scope's record.
    are_ints = isinstance(changed_ns, int) and isinstance(up_to_generation, int)
    if found[:2] not in wanted or not are_ints:
        raise SpoiltChange("a recorded change cannot be understood")
    return changed_ns, up_to_generation, str(namespaces)


def scopes_of_row(key: EntryKey, owner: str) -> tuple[Scope, ...]:
    """Return every scope that `removed_up_to` looks at, whatever the kind of `key` is."""
    return (
        key_scope(key),
        Scope(ScopeKind.USER, key.id),
        Scope(ScopeKind.CLOTHING, key.id),
        Scope(ScopeKind.OWNER, owner),
        Scope(ScopeKind.NAMESPACE, key.namespace),
        Scope(ScopeKind.EVERYTHING),
    )


def replace_spoilt(db: sqlite3.Connection, scopes: Iterable[Scope], lost: Change) -> None:
    """Assume `lost` for each of `scopes` whose record is spoilt.

    Raises SpoiltChange if a record is still spoilt then: the tree itself is.
    """
    for scope in scopes:
        try:
            _recorded(db, scope)
        except SpoiltChange:
            record(db, Change(scope, lost.changed_ns, lost.up_to_generation), lost)
            _recorded(db, scope)


# ---- all records


def _add_to_count(db: sqlite3.Connection, added: int) -> None:
    _set_count(db, _count(db) + added)


def _set_count(db: sqlite3.Connection, count: int) -> None:
    db.execute("UPDATE recorded SET changes = ?, row_sum = ?", (count, sum_of(count)))


def _count(db: sqlite3.Connection) -> int:
    """Return the stored number of records. Raises UnreadableRow."""
    found = db.execute("SELECT changes, row_sum FROM recorded").fetchall()
    if len(found) != 1 or found[0][1] != sum_of(found[0][0]):
        raise UnreadableRow("the number of recorded changes cannot be understood")
    return int(found[0][0])


def check(db: sqlite3.Connection) -> None:
    """Raise SpoiltChange unless every record is there, unspoilt and in order."""
    before, read = ("", ""), 0
    for found in db.execute(f"SELECT {_COLUMNS} FROM changes ORDER BY scope, value"):  # noqa: S608
        if not _is_sound(found) or found[:2] <= before:
            raise SpoiltChange("a recorded change is not where it was stored")
        before, read = found[:2], read + 1
    if read != _count(db):
        raise SpoiltChange("a recorded change is lost")


def _is_sound(found: tuple[Any, ...]) -> bool:
    try:
        _parsed(found, [found[:2]])
    except SpoiltChange:
        return False
    return all(isinstance(name, str) for name in found[:2])


def rebuild(db: sqlite3.Connection, lost: Change) -> None:
    """Keep the sound records; in place of the others assume that everything changed now."""
    every = db.execute(f"SELECT {_COLUMNS} FROM changes").fetchall()  # noqa: S608 constants
    sound = {found[:2]: found for found in every if _is_sound(found)}
    db.execute("DELETE FROM changes")
    db.executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?)", sound.values())
    _set_count(db, len(sound))
    # It covers no row: the rows that a lost change covers are deleted already.
    record(db, Change(Scope(ScopeKind.EVERYTHING), lost.changed_ns), lost)


def add_sums(db: sqlite3.Connection, after: tuple[str, str], limit: int) -> tuple[str, str] | None:
    """Add checksums to records of the first release: at most `limit` of those behind `after`.

    Returns the last of them, None if there are no more.
    """
    sql = (
        f"SELECT {_COLUMNS} FROM changes WHERE (scope, value) > (?, ?) AND row_sum IS NULL"  # noqa: S608
        " ORDER BY scope, value LIMIT ?"
    )
    found = db.execute(sql, (*after, limit)).fetchall()
    for *values, _ in found:
        _store(db, tuple(values))
    return (found[-1][0], found[-1][1]) if found else None
