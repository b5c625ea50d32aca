"""L2's catalog: the row is the entry. SQLite in WAL mode, FULL sync, outside the L2 root.

One thread owns all writes (`write_queue.py`); lookups read committed rows on
their own connections. A catalog that cannot be opened, or proves damaged later, is
set aside and L2 starts empty: it is a cache. The format is docs/on-disk-format.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from cachesvc.core.entry import Row
from cachesvc.core.errors import ConfigError, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope
from cachesvc.tiers import catalog_rows as rows
from cachesvc.tiers.catalog_rows import Total
from cachesvc.tiers.disk_files import Location
from cachesvc.tiers.write_queue import RunBatch, Write, WriteQueue

FILE_NAME = "catalog.sqlite"
BUSY_TIMEOUT_S = 5.0
# Rows that one eviction deletes: an invalidation queued behind it waits some 20 ms, not
# the second that a sixth of a large catalog takes.
EVICT_BATCH = 200
T = TypeVar("T")


class Damaged(Exception):
    """The catalog's file is not a database of ours any more."""


class Catalog:
    """The rows of L2. Methods that queue a write fix its order before they return.

    A write's future fails with NotDurable if it could not be committed (a full disk
    refuses even a DELETE); nothing of it was done then.
    """

    def __init__(
        self,
        directory: Path,
        *,
        on_reset: Callable[[], None],
        make_queue: Callable[[RunBatch], WriteQueue] = WriteQueue,
    ) -> None:
        """Open, or set aside and start empty.

        `make_queue` decides who commits, and when: a thread of its own, or a test's schedule.

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
            self._check_names()
            self._db: sqlite3.Connection | None = self._open_or_start_empty()
        except (OSError, sqlite3.Error) as exc:
            raise ConfigError(f"{self._path}: cannot be opened for writing: {exc}") from exc
        self._writes = make_queue(self._run_batch)

    # ---- opening and resetting

    def _check_names(self) -> None:
        """Raise ConfigError for a link or a FIFO, which SQLite would follow, or wait for."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            path = Path(f"{self._path}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise ConfigError(f"{path}: is not a regular file; remove it")

    def _open_or_start_empty(self) -> sqlite3.Connection:
        # SQLite reports a read that failed as damage (EIO is its CORRUPTFS), and such
        # errors pass: what is damaged is so twice.
        for _ in range(2):
            with contextlib.suppress(Damaged):
                return self._open_undamaged()
        self._set_aside()
        return self._open()

    def _open_undamaged(self) -> sqlite3.Connection:
        """Raises Damaged; for a full disk or a lock, which pass too, sqlite3.Error."""
        try:
            return self._open()
        except sqlite3.DatabaseError as exc:
            if rows.is_damage(exc):
                raise Damaged from exc
            raise

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
                    f"BEGIN; {rows.SCHEMA} PRAGMA user_version = {rows.SCHEMA_VERSION}; COMMIT;"
                )
            elif version != rows.SCHEMA_VERSION:
                raise rows.UnknownSchema(f"schema version {version}")
            self.totals = rows.totals(db)
            self.last_generation = max(self.last_generation, rows.last_generation(db))
            self.last_boot_id, self.ended_cleanly, self.acknowledge_from_ns = rows.last_boot(db)
        except BaseException:  # whatever it was, nobody else can close it
            db.close()
            raise
        return db

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

    def _reopen(self) -> None:
        """Look once more, in the writer's thread, whether it is damaged. Raises Damaged."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._db = self._open_undamaged()

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
                self._commit_again(batch)
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

    def _commit_again(self, batch: list[Write[Any]]) -> None:
        """As at the start: what is damaged is so twice."""
        try:
            self._reopen()
            self._commit(batch)
        except Damaged:
            self._reset()
            self._commit(batch)

    def _commit(self, batch: list[Write[Any]]) -> None:
        db = self._db or self._reset()
        try:
            db.execute("BEGIN IMMEDIATE")
            for write in batch:
                write.error = None
                write.result = write.run(db)
            # Before COMMIT: what fails behind it would make done writes failed ones.
            totals = rows.totals(db)
            db.execute("COMMIT")
            self.totals = totals
        except BaseException as exc:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error) and rows.is_damage(exc):
                raise Damaged from exc
            raise

    # ---- reading

    def lookup(self, key: EntryKey) -> Row | None:
        """Return the committed row. Blocks: call it in a worker thread.

        A damaged catalog reads as a miss; the next write sets it aside.
        """
        sql = f"SELECT {rows.COLUMNS} FROM entries WHERE namespace = ? AND id = ?"  # noqa: S608 constants

        def read(db: sqlite3.Connection) -> Row | None:
            found = db.execute(sql, key).fetchone()
            return None if found is None else rows.row_of(found)

        return self._read(read)

    def locations(self, scope: Scope) -> list[Location]:
        """Return the files of every row that `scope` covers. Blocks."""
        where, values = rows.condition_of(scope)
        sql = f"SELECT namespace, id, generation FROM entries WHERE {where}"  # noqa: S608 constants
        found = self._read(lambda db: db.execute(sql, values).fetchall())
        return [rows.location_of(row) for row in found]

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
                    f"file:{quote(str(self._path))}?mode=ro",
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
        return self._writes.put(lambda db: rows.upsert(db, row))

    def delete(self, locations: list[Location]) -> asyncio.Future[list[Location]]:
        """Delete these generations only. Gives those that were there."""
        return self._writes.put(lambda db: [at for at in locations if rows.delete_one(db, at)])

    def invalidate(self, scope: Scope, changed_ns: int) -> asyncio.Future[list[Location]]:
        """Delete what `scope` covers and remember the change. Gives the files to unlink."""
        return self._writes.put(lambda db: rows.invalidate(db, scope, changed_ns))

    def record_change(self, scope: Scope, changed_ns: int) -> asyncio.Future[None]:
        """Remember a change whose removal is already durable."""
        return self._writes.put(lambda db: rows.record_change(db, scope, changed_ns))

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
        return self._writes.put(lambda db: rows.evict(db, bytes_to_free, limit))

    def expire(self, steady_ns: int, limit: int) -> asyncio.Future[list[Row]]:
        """Delete at most `limit` rows that expired at `steady_ns` or before."""
        return self._writes.put(lambda db: rows.expire(db, steady_ns, limit))

    def confirm(self, row: Row) -> asyncio.Future[None]:
        """Renew a generation: its members were just seen unchanged at the origin."""
        return self._writes.put(lambda db: rows.confirm(db, row))

    def hottest(self, limit: int) -> list[Row]:
        """Return the rows that were used last, the latest first. Blocks."""
        sql = f"SELECT {rows.COLUMNS} FROM entries ORDER BY last_access_ns DESC LIMIT ?"  # noqa: S608
        return self._read(lambda db: [rows.row_of(row) for row in db.execute(sql, (limit,))])

    def record_accesses(self, used: list[Row]) -> asyncio.Future[None]:
        """Remember how these generations were used, and their new expiry."""
        return self._writes.put(lambda db: rows.record_accesses(db, used))

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
