"""L2's catalog: the row is the entry. SQLite in WAL mode, FULL sync, outside the L2 root.

One thread owns all writes (`write_queue.py`); lookups read committed rows on
their own connections. A catalog that cannot be opened, or proves damaged later, is
set aside and L2 starts empty: it is a cache. The format is docs/formats.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.errors import ConfigError, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.origin import OriginStamp
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.tiers.disk_files import Location, stored_bytes
from cachesvc.tiers.write_queue import Write, WriteQueue

FILE_NAME = "catalog.sqlite"
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
# Rows that one eviction deletes: an invalidation queued behind it waits some 20 ms, not
# the second that a sixth of a large catalog takes.
EVICT_BATCH = 200
T = TypeVar("T")

_SCHEMA = """
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
_COLUMNS = f"{_META_COLUMNS}, accesses, last_access_ns"


@dataclass(frozen=True, slots=True)
class Total:
    """What one namespace holds, in bytes on disk."""

    entries: int = 0
    stored_bytes: int = 0


class Damaged(Exception):
    """The catalog's file is not a database of ours any more."""


class UnknownSchema(sqlite3.DatabaseError):
    """Another version of the daemon wrote it."""


class UnreadableRow(sqlite3.DatabaseError):
    """SQLite has no checksums: a flipped bit in a text loads without a word."""


class Catalog:
    """The rows of L2. Methods that queue a write fix its order before they return.

    A write's future fails with NotDurable if it could not be committed (a full disk
    refuses even a DELETE); nothing of it was done then.
    """

    def __init__(self, directory: Path, *, on_reset: Callable[[], None]) -> None:
        """Open, or set aside and start empty.

        Raises:
            ConfigError: the directory cannot be written.
        """
        self._path = directory / FILE_NAME
        self._on_reset = on_reset
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._epoch = 0
        self.totals: dict[str, Total] = {}
        self.last_generation = 0
        self.last_boot_id = b""
        self.ended_cleanly = False
        self.acknowledge_from_ns = 0
        try:
            self._db: sqlite3.Connection | None = self._open_or_start_empty()
        except (OSError, sqlite3.Error) as exc:
            raise ConfigError(f"{self._path}: cannot be opened for writing: {exc}") from exc
        self._writes = WriteQueue(self._run_batch)

    # ---- opening and resetting

    def _open_or_start_empty(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError as exc:
            # A full disk or a lock passes, and the rows are still good.
            if not _is_damage(exc):
                raise
            self._set_aside()
            return self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S
        )
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 67108864")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                db.executescript(
                    f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                )
            elif version != SCHEMA_VERSION:
                raise UnknownSchema(f"schema version {version}")
            self._load_totals(db)
            self.last_generation = max(
                self.last_generation,
                db.execute("SELECT generation FROM last_generation").fetchone()[0],
            )
            boot = db.execute("SELECT * FROM last_boot").fetchone()
            self.last_boot_id, self.ended_cleanly = boot[0], bool(boot[1])
            self.acknowledge_from_ns = boot[2]
        except BaseException:
            db.close()
            raise
        return db

    def _load_totals(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT namespace, entries, stored_bytes FROM totals").fetchall()
        self.totals = {namespace: Total(*rest) for namespace, *rest in rows}

    def _set_aside(self) -> None:
        """Rename the database and its log durably, so that none of it is ever read again."""
        for suffix in ("", "-wal", "-shm"):
            name = Path(f"{self._path}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                # One is kept for a person to look at, not one for each time.
                name.replace(f"{self._path}.damaged{suffix}")
        fd = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._on_reset()

    def _reset(self) -> sqlite3.Connection:
        """Start empty, in the writer's thread. Readers notice the new epoch."""
        if self._db is not None:
            self._db.close()
            self._db = None
            self._set_aside()
        # If this fails (a full disk) the next write comes here again.
        self._db = self._open_or_start_empty()
        self._epoch += 1
        return self._db

    # ---- the writer's thread

    def _run_batch(self, batch: list[Write[Any]]) -> None:
        if self._run_together(batch) or len(batch) == 1:
            return
        # One write may have spoiled the commit for the rest: each gets its own.
        for write in batch:
            self._run_together([write])

    def _run_together(self, batch: list[Write[Any]]) -> bool:
        """Run `batch` in one transaction; on a failure each write has the error."""
        try:
            try:
                self._commit(batch)
            except Damaged:
                self._reset()
                self._commit(batch)
        except (OSError, sqlite3.Error, Damaged) as exc:
            for write in batch:
                write.error = NotDurable("the catalog cannot be written; free some disk space")
                write.error.__cause__ = exc
            return False
        except Exception as exc:  # noqa: BLE001 a defect of ours must reach its waiter, not end the thread
            for write in batch:
                write.error = exc
            return False
        return True

    def _commit(self, batch: list[Write[Any]]) -> None:
        db = self._db or self._reset()
        try:
            db.execute("BEGIN IMMEDIATE")
            for write in batch:
                write.error = None
                write.result = write.run(db)
            db.execute("COMMIT")
            self._load_totals(db)
        except BaseException as exc:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error) and _is_damage(exc):
                raise Damaged from exc
            raise

    # ---- reading

    def lookup(self, key: EntryKey) -> Row | None:
        """Return the committed row. Blocks: call it in a worker thread.

        A damaged catalog reads as a miss; the next write sets it aside.
        """
        sql = f"SELECT {_COLUMNS} FROM entries WHERE namespace = ? AND id = ?"  # noqa: S608 constants

        def read(db: sqlite3.Connection) -> Row | None:
            found = db.execute(sql, key).fetchone()
            return None if found is None else _row(found)

        return self._read(read)

    def locations(self, scope: Scope) -> list[Location]:
        """Return the files of every row that `scope` covers. Blocks."""
        where, values = _where(scope)
        sql = f"SELECT namespace, id, generation FROM entries WHERE {where}"  # noqa: S608 constants
        return [_location(row) for row in self._read(lambda db: db.execute(sql, values).fetchall())]

    def last_change_ns(self, scopes: Iterable[Scope]) -> int:
        """Return the latest change recorded for any of `scopes`, 0 if none. Blocks."""
        sql = "SELECT changed_ns FROM changes WHERE scope = ? AND value = ?"

        def read(db: sqlite3.Connection) -> int:
            found = (db.execute(sql, (s.kind.value, s.value)).fetchone() for s in scopes)
            return max((row[0] for row in found if row is not None), default=0)

        return self._read(read)

    def generations(self, namespace: str, ids: list[str]) -> dict[str, int]:
        """Return the generation of each of `ids` that has a row. Blocks."""
        marks = ", ".join("?" * len(ids))
        sql = f"SELECT id, generation FROM entries WHERE namespace = ? AND id IN ({marks})"  # noqa: S608 marks only
        return dict(self._read(lambda db: db.execute(sql, (namespace, *ids)).fetchall()))

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run `read` on this thread's own connection. Raises NotDurable if it cannot."""
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        epoch = self._epoch
        try:
            if db is None or self._local.epoch != epoch:
                db = sqlite3.connect(
                    f"file:{self._path}?mode=ro",
                    uri=True,
                    timeout=BUSY_TIMEOUT_S,
                    check_same_thread=False,
                )
                self._readers.append(db)
                self._local.db, self._local.epoch = db, epoch
            return read(db)
        except sqlite3.Error as exc:
            raise NotDurable("the catalog cannot be read") from exc

    # ---- writing: each returns a future of what was committed

    def upsert(self, row: Row) -> asyncio.Future[Location | None]:
        """Make `row` the entry of its key. Gives the file of the row that it replaced."""
        return self._writes.put(lambda db: _upsert(db, row))

    def delete(self, locations: list[Location]) -> asyncio.Future[list[Location]]:
        """Delete these generations only. Gives those that were there."""
        return self._writes.put(lambda db: [at for at in locations if _delete_one(db, at)])

    def invalidate(self, scope: Scope, changed_ns: int) -> asyncio.Future[list[Location]]:
        """Delete what `scope` covers and remember the change. Gives the files to unlink."""
        return self._writes.put(lambda db: _invalidate(db, scope, changed_ns))

    def record_change(self, scope: Scope, changed_ns: int) -> asyncio.Future[None]:
        """Remember a change whose removal is already durable."""
        return self._writes.put(lambda db: _record_change(db, scope, changed_ns))

    def record_boot(self, boot_id: bytes, acknowledge_from_ns: int) -> asyncio.Future[None]:
        """Remember whose life this is: a successor has to know whom workers may still trust.

        `acknowledge_from_ns` (steady) is until when they may trust this one's predecessor.
        """

        def run(db: sqlite3.Connection) -> None:
            db.execute("UPDATE last_boot SET boot_id = ?, ended_cleanly = 0", (boot_id,))
            db.execute("UPDATE last_boot SET acknowledge_from_ns = ?", (acknowledge_from_ns,))

        return self._writes.put(run)

    def record_clean_end(self) -> asyncio.Future[None]:
        """Remember that every acknowledged change is in here."""

        def run(db: sqlite3.Connection) -> None:
            db.execute("UPDATE last_boot SET ended_cleanly = 1")

        return self._writes.put(run)

    def evict(self, bytes_to_free: int, limit: int = EVICT_BATCH) -> asyncio.Future[list[Row]]:
        """Delete least-recently-used rows until so many stored bytes are freed, `limit` at most."""
        return self._writes.put(lambda db: _evict(db, bytes_to_free, limit))

    def expire(self, steady_ns: int, limit: int) -> asyncio.Future[list[Row]]:
        """Delete at most `limit` rows that expired at `steady_ns` or before."""
        return self._writes.put(lambda db: _expire(db, steady_ns, limit))

    def confirm(self, row: Row) -> asyncio.Future[None]:
        """Renew a generation: its members were just seen unchanged at the origin."""
        return self._writes.put(lambda db: _confirm(db, row))

    def hottest(self, limit: int) -> list[Row]:
        """Return the rows that were used last, the latest first. Blocks."""
        sql = f"SELECT {_COLUMNS} FROM entries ORDER BY last_access_ns DESC LIMIT ?"  # noqa: S608
        found = self._read(lambda db: db.execute(sql, (limit,)).fetchall())
        return [_row(row) for row in found]

    def record_accesses(self, used: list[Row]) -> asyncio.Future[None]:
        """Remember how these generations were used, and their new expiry."""
        return self._writes.put(lambda db: _record_accesses(db, used))

    def forget_changes(self, before_ns: int) -> asyncio.Future[None]:
        """Drop recorded changes older than `before_ns` (wall)."""

        def run(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM changes WHERE changed_ns < ?", (before_ns,))

        return self._writes.put(run)

    @property
    def queue_depth(self) -> int:
        return self._writes.depth

    def close(self) -> None:
        """Finish what is queued and close. Blocks."""
        self._writes.close()
        # The writer last: the last connection to close empties the log.
        for reader in self._readers:
            reader.close()
        if self._db is not None:
            self._db.close()


def _is_damage(exc: sqlite3.Error) -> bool:
    """Tell a damaged file from a full disk, a lock or an I/O error, which pass."""
    if isinstance(exc, UnknownSchema | UnreadableRow):
        return True
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return True
    return code == sqlite3.SQLITE_ERROR and "no such" in str(exc)  # a table or column is gone


def _location(row: tuple[Any, ...]) -> Location:
    namespace, entry_id, generation = row
    return Location(EntryKey(namespace, entry_id), generation)


def _row(found: tuple[Any, ...]) -> Row:
    try:
        return _parsed_row(found)
    except (TypeError, ValueError) as exc:
        raise UnreadableRow("a row cannot be understood") from exc


def _parsed_row(found: tuple[Any, ...]) -> Row:
    namespace, entry_id, owner, generation, size_bytes, checksum, stamps, *rest = found
    *times_and_ttl, accesses, last_access_ns = rest
    begun_ns, origin_ns, confirmed_ns, base_ttl_s, explicit_ttl_s, *version_and_as_of = (
        times_and_ttl
    )
    kind_version, as_of_ns = version_and_as_of
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
        kind_version=kind_version,
        as_of_ns=as_of_ns,
    )
    return Row(meta, accesses, last_access_ns)


def _where(scope: Scope) -> tuple[str, tuple[str, ...]]:
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


def _add_to_total(db: sqlite3.Connection, namespace: str, entries: int, size: int) -> None:
    db.execute(
        "INSERT INTO totals VALUES (?, ?, ?) ON CONFLICT (namespace) DO UPDATE SET"
        " entries = entries + excluded.entries,"
        " stored_bytes = stored_bytes + excluded.stored_bytes",
        (namespace, entries, size),
    )


def _upsert(db: sqlite3.Connection, row: Row) -> Location | None:
    meta = row.meta
    replaced = db.execute(
        "DELETE FROM entries WHERE namespace = ? AND id = ?"
        " RETURNING namespace, id, generation, stored_bytes",
        meta.key,
    ).fetchall()
    size = stored_bytes(meta.size_bytes)
    db.execute(
        f"INSERT INTO entries ({_COLUMNS}, stored_bytes, expires_ns)"  # noqa: S608 constants
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
        _record_change(db, key_scope(meta.key), meta.as_of_ns)
    return _location(replaced[0][:3]) if replaced else None


def _delete_one(db: sqlite3.Connection, at: Location) -> bool:
    deleted = db.execute(
        "DELETE FROM entries WHERE namespace = ? AND id = ? AND generation = ?"
        " RETURNING stored_bytes",
        (*at.key, at.generation),
    ).fetchall()
    for (size,) in deleted:
        _add_to_total(db, at.key.namespace, -1, -size)
    return bool(deleted)


def _invalidate(db: sqlite3.Connection, scope: Scope, changed_ns: int) -> list[Location]:
    where, values = _where(scope)
    deleted = db.execute(
        f"DELETE FROM entries WHERE {where}"  # noqa: S608 conditions are constants
        " RETURNING namespace, id, generation, stored_bytes",
        values,
    ).fetchall()
    for namespace, _, _, size in deleted:
        _add_to_total(db, namespace, -1, -size)
    _record_change(db, scope, changed_ns)
    return [_location(row[:3]) for row in deleted]


def _record_change(db: sqlite3.Connection, scope: Scope, changed_ns: int) -> None:
    db.execute(
        "INSERT INTO changes VALUES (?, ?, ?) ON CONFLICT (scope, value) DO UPDATE SET"
        " changed_ns = max(changed_ns, excluded.changed_ns)",
        (scope.kind.value, scope.value, changed_ns),
    )


def _evict(db: sqlite3.Connection, bytes_to_free: int, limit: int) -> list[Row]:
    victims: list[Row] = []
    freed = 0
    sql = f"SELECT {_COLUMNS} FROM entries ORDER BY last_access_ns LIMIT ?"  # noqa: S608
    for found in db.execute(sql, (limit,)):
        if freed >= bytes_to_free:
            break
        row = _row(found)
        victims.append(row)
        freed += stored_bytes(row.meta.size_bytes)
    return _delete_rows(db, victims)


def _expire(db: sqlite3.Connection, steady_ns: int, limit: int) -> list[Row]:
    sql = f"SELECT {_COLUMNS} FROM entries WHERE expires_ns <= ? ORDER BY expires_ns LIMIT ?"  # noqa: S608
    return _delete_rows(db, [_row(found) for found in db.execute(sql, (steady_ns, limit))])


def _delete_rows(db: sqlite3.Connection, rows: list[Row]) -> list[Row]:
    for row in rows:
        _delete_one(db, Location(row.meta.key, row.meta.generation))
    return rows


def _confirm(db: sqlite3.Connection, row: Row) -> None:
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


def _record_accesses(db: sqlite3.Connection, used: list[Row]) -> None:
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
