"""L2's catalog: the row is the entry. SQLite in WAL mode, FULL sync, outside the L2 root.

One thread owns all writes (`write_queue.py`); lookups read committed rows on
their own connections. A catalog that cannot be opened, or proves damaged later, is
set aside and L2 starts empty: it is a cache. The format is docs/on-disk-format.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from cachesvc.core.clock import Clock, Now
from cachesvc.core.entry import Row
from cachesvc.core.errors import ConfigError, CorruptEntry, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Change, Scope, ScopeKind
from cachesvc.tiers import catalog_changes as changes
from cachesvc.tiers import catalog_facts
from cachesvc.tiers import catalog_rows as rows
from cachesvc.tiers.anchors import Anchor, NameLost
from cachesvc.tiers.catalog_damage import connect, is_damage
from cachesvc.tiers.catalog_facts import Total
from cachesvc.tiers.catalog_file import BUSY_TIMEOUT_S, CatalogFile, Damaged, Opened
from cachesvc.tiers.catalog_schema import COLUMNS
from cachesvc.tiers.disk_files import Location
from cachesvc.tiers.quarantine import erase_catalog_set_aside, trim_catalog_set_aside
from cachesvc.tiers.witness import Witness
from cachesvc.tiers.write_queue import RunBatch, Write, WriteQueue

# The most rows that one eviction deletes. An invalidation queued behind it waits some 20 ms;
# deleting a sixth of a large catalog would take a second.
EVICT_BATCH = 200
T = TypeVar("T")
_SYSTEM = Clock()


class Catalog:
    """The rows of L2. Methods that queue a write fix its order before they return.

    A write's future fails with NotDurable if the write could not be committed (a full disk
    refuses even a DELETE); then it has changed nothing.
    """

    def __init__(
        self,
        directory: Path,
        *,
        on_reset: Callable[[], None],
        make_queue: Callable[[RunBatch], WriteQueue] = WriteQueue,
        read_time: Callable[[], Now] = _SYSTEM.read,
        witnesses: Sequence[Witness] = (),
        anchors: Sequence[Anchor] = (),
    ) -> None:
        """Open the catalog; set a damaged one aside and start empty.

        `make_queue` decides who commits, and when: a thread of its own, or a test's schedule.
        `read_time` gives a commit's time. `witnesses` note each commit and recognize an older
        state; `anchors` are further paths without which nothing is durable.

        Raises:
            ConfigError: the directory cannot be written.
        """
        self._on_reset = on_reset
        self._read_time = read_time
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._epoch = 0
        self.totals: dict[str, Total] = {}
        self.newest_generation = 0
        self._file = CatalogFile(directory, witnesses, anchors)
        try:
            self._file.check_names()
            self._db: sqlite3.Connection | None = self._open_or_start_empty()
        except (OSError, sqlite3.Error, Damaged) as exc:
            raise ConfigError(f"{self._file.path}: cannot be opened for writing: {exc}") from exc
        # Facts that the last life left; this life's first commit changes them.
        self.last_boot_id = self._facts.boot_id
        self.ended_cleanly = bool(self._facts.ended_cleanly)
        self.acknowledge_from_ns = self._facts.acknowledge_from_ns
        self.last_write_ns = self._facts.last_write_ns
        self.last_write_steady_ns = self._facts.last_write_steady_ns
        self.last_generation = self._facts.last_generation
        # How far `add_sums` has come; None at the end.
        self._entry_with_sum: EntryKey | None = EntryKey("", "")
        self._change_with_sum: tuple[str, str] | None = ("", "")
        self._changes_are_checked = False
        self._writes = make_queue(self._run_batch)

    # ---- opening and resetting

    def _open_or_start_empty(self) -> sqlite3.Connection:
        try:
            opened = self._file.open_twice()
        except Damaged as exc:
            self._set_aside(str(exc))
            opened = self._file.open_undamaged()
        return self._take(opened)

    def _take(self, opened: Opened) -> sqlite3.Connection:
        self._facts, self.totals = opened.facts, opened.totals
        # The catalog may hold rows up to this generation: an invalidation covers them.
        self.newest_generation = max(self.newest_generation, self._facts.last_generation)
        return opened.db

    def _set_aside(self, why: str) -> None:
        self._file.set_aside(why)
        self._on_reset()

    def _reset(self, why: str) -> sqlite3.Connection:
        """Set it aside and start empty, in the writer's thread. Readers notice the new `_epoch`."""
        if self._db is not None:
            self._db.close()
            self._db = None
            self._set_aside(why)
        # If this fails (a full disk) the next write comes here again.
        self._db = self._open_or_start_empty()
        self._epoch += 1
        return self._db

    def _reopen(self) -> None:
        """Open the catalog again, in the writer's thread. Raises Damaged."""
        if self._db is not None:
            self._db.close()
            self._db = None
        self._db = self._take(self._file.open_undamaged())

    # ---- the writer's thread

    def _run_batch(self, batch: list[Write[Any]]) -> None:
        if self._run_together(batch) or len(batch) == 1:
            return
        # One write may have made the commit fail: give each write a commit of its own.
        for write in batch:
            self._run_together([write])

    def _run_together(self, batch: list[Write[Any]]) -> bool:
        """Run `batch` in one transaction; if it fails, each write has the error."""
        try:
            try:
                self._commit(batch)
            except Damaged:
                self._commit_again(batch)
        except (OSError, sqlite3.Error, Damaged) as exc:
            for write in batch:
                write.error = _not_durable(exc)
            return False
        except Exception as exc:  # noqa: BLE001 a defect of ours must reach its waiter, not end the thread
            for write in batch:
                write.error = exc
            return False
        return True

    def _commit_again(self, batch: list[Write[Any]]) -> None:
        """Commit after a new open, as at the start: believe in damage only if found twice."""
        try:
            self._reopen()
            self._commit(batch)
        except Damaged as exc:
            self._reset(str(exc))
            self._commit(batch)

    def _commit(self, batch: list[Write[Any]]) -> None:
        db = self._db or self._reset("it could not be opened")
        # The batch's writes change this copy, which is dropped if the commit fails.
        self._draft = copy.copy(self._facts)
        self._file.check_anchors()
        try:
            db.execute("BEGIN IMMEDIATE")
            for write in batch:
                write.error = None
                write.result = write.run(db)
            now = self._read_time()
            self._draft.commits += 1
            self._draft.last_write_ns, self._draft.last_write_steady_ns = now
            catalog_facts.write(db, self._draft)
            # Before COMMIT: a failure after it would report committed writes as failed.
            totals = catalog_facts.totals(db)
            db.execute("COMMIT")
            self._facts, self.totals = self._draft, totals
            self._file.note(self._facts)
            # Check again: otherwise a commit would be acknowledged whose path was lost meanwhile.
            self._file.check_anchors()
        except BaseException as exc:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            if isinstance(exc, sqlite3.Error) and self._file.is_damage(exc):
                raise Damaged(str(exc)) from exc
            raise

    def _lost(self) -> Change:
        """Return what to assume of a change whose record is spoilt: everything changed now."""
        scope = Scope(ScopeKind.EVERYTHING)
        return Change(scope, self._read_time().wall_ns, self.newest_generation)

    # ---- reading

    def lookup(self, key: EntryKey) -> Row | None:
        """Return the committed row. Blocks: call it in a worker thread.

        Raises:
            CorruptEntry: the row may not be served, or the catalog is damaged; `distrust` deletes
                the row or sets the catalog aside.
            NotDurable: the catalog cannot be read.
        """
        return self._read_trusted(lambda db: rows.trusted(db, key))

    def locations(self, change: Change) -> list[Location]:
        """Return the files of every row that `change` covers. Blocks."""
        return self._read(lambda db: rows.locations(db, change))

    def last_change_ns(self, scopes: Iterable[Scope]) -> int:
        """Return the latest change recorded for any of `scopes`, 0 if none. Blocks.

        Raises:
            CorruptEntry: a record is spoilt; `assume_changed` replaces it.
        """
        return self._read_trusted(lambda db: changes.last_change_ns(db, scopes))

    def check_changes(self) -> None:
        """Check, until it succeeds once, that every recorded change can be found. Blocks.

        Raises:
            CorruptEntry: a change cannot be found; `rebuild_changes` repairs the records.
        """
        if not self._changes_are_checked:
            self._read_trusted(changes.check)
            self._changes_are_checked = True

    def generations(self, namespace: str, ids: list[str]) -> dict[str, int]:
        """Return the generation of each of `ids` that has a row. Blocks."""
        marks = ", ".join("?" * len(ids))
        sql = f"SELECT id, generation FROM entries WHERE namespace = ? AND id IN ({marks})"  # noqa: S608 marks only
        return dict(self._read(lambda db: db.execute(sql, (namespace, *ids)).fetchall()))

    def _read_trusted(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run `read`; raises CorruptEntry where the writer has to check what was read."""
        try:
            return self._read(read)
        except NotDurable as exc:
            if isinstance(exc.__cause__, sqlite3.Error) and is_damage(exc.__cause__):
                raise CorruptEntry(str(exc.__cause__)) from exc
            raise

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run `read` on this thread's connection, in a transaction: it sees one snapshot.

        Raises NotDurable: the catalog cannot be read.
        """
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        epoch = self._epoch
        try:
            if db is None or self._local.epoch != epoch:
                uri = f"file:{quote(str(self._file.path))}?mode=ro"
                db = connect(uri, timeout_s=BUSY_TIMEOUT_S, uri=True)
                self._readers.append(db)
                self._local.db, self._local.epoch = db, epoch
            # A row from before an invalidation's commit, with its change, looks like damage.
            db.execute("BEGIN")
            try:
                return read(db)
            finally:
                if db.in_transaction:
                    db.rollback()
        except sqlite3.Error as exc:
            raise NotDurable("the catalog cannot be read") from exc

    # ---- writing: each returns a future of what was committed

    def upsert(self, row: Row) -> asyncio.Future[Location | None]:
        """Make `row` the entry of its key. Gives the replaced row's file, or None."""
        generation = row.meta.generation
        self.newest_generation = max(self.newest_generation, generation)

        def run(db: sqlite3.Connection) -> Location | None:
            replaced = rows.upsert(db, row, self._lost())
            self._draft.last_generation = max(self._draft.last_generation, generation)
            return replaced

        return self._writes.put(run)

    def delete(self, locations: list[Location]) -> asyncio.Future[list[Location]]:
        """Delete these generations only. Gives those that had a row."""
        return self._writes.put(lambda db: [at for at in locations if rows.delete_one(db, at)])

    def distrust(self, key: EntryKey) -> asyncio.Future[list[Location]]:
        """Delete the row that `lookup` refused. Gives its file, if the row is readable."""
        return self._writes.put(lambda db: rows.distrust(db, key, self._lost()))

    def change_of(self, scope: Scope, changed_ns: int) -> Change:
        """Return a change that covers every row queued before this call."""
        return Change(scope, changed_ns, self.newest_generation)

    def invalidate(self, change: Change) -> asyncio.Future[list[Location]]:
        """Delete what `change` covers and remember it. Gives the files to unlink."""
        return self._writes.put(lambda db: rows.invalidate(db, change, self._lost()))

    def record_change(self, change: Change) -> asyncio.Future[None]:
        """Record a change whose files are already gone, and delete the rows that are left of them.

        The next look-up of each would take it for damage.
        """

        def run(db: sqlite3.Connection) -> None:
            rows.invalidate(db, change, self._lost())

        return self._writes.put(run)

    def assume_changed(self, scopes: Iterable[Scope]) -> asyncio.Future[None]:
        """Record a change now for each of `scopes` whose record is lost."""
        return self._writes.put(lambda db: changes.replace_spoilt(db, scopes, self._lost()))

    def rebuild_changes(self) -> asyncio.Future[None]:
        """Record a change of everything now, in place of lost records."""
        return self._writes.put(lambda db: changes.rebuild(db, self._lost()))

    def record_boot(self, boot_id: bytes, acknowledge_from_ns: int) -> asyncio.Future[None]:
        """Remember the daemon's boot id: a successor has to know which daemon workers may trust.

        Until `acknowledge_from_ns` (steady) workers may trust this daemon's predecessor.
        """

        def run(_: sqlite3.Connection) -> None:
            self._draft.boot_id = boot_id
            self._draft.ended_cleanly = 0
            self._draft.acknowledge_from_ns = acknowledge_from_ns

        return self._writes.put(run)

    def record_clean_end(self) -> asyncio.Future[None]:
        """Remember that the catalog has every acknowledged change."""

        def run(_: sqlite3.Connection) -> None:
            self._draft.ended_cleanly = 1

        return self._writes.put(run)

    def evict(self, bytes_to_free: int, limit: int = EVICT_BATCH) -> asyncio.Future[list[Row]]:
        """Delete least-recently-used rows until `bytes_to_free` are freed, at most `limit` rows."""
        return self._writes.put(lambda db: rows.evict(db, bytes_to_free, limit))

    def expire(self, steady_ns: int, limit: int) -> asyncio.Future[list[Row]]:
        """Delete at most `limit` rows that expired at `steady_ns` or before."""
        return self._writes.put(lambda db: rows.expire(db, steady_ns, limit))

    def confirm(self, row: Row) -> asyncio.Future[None]:
        """Renew a generation whose members the origin has just reported unchanged."""
        return self._writes.put(lambda db: rows.confirm(db, row))

    def hottest(self, limit: int) -> list[Row]:
        """Return the rows that were used last, the latest first. Blocks."""
        sql = f"SELECT {COLUMNS} FROM entries ORDER BY last_access_ns DESC LIMIT ?"  # noqa: S608
        return self._read(lambda db: list(rows.readable_rows(db.execute(sql, (limit,)))))

    def record_accesses(self, used: list[Row]) -> asyncio.Future[None]:
        """Remember how these generations were used, and their new expiry."""
        return self._writes.put(lambda db: rows.record_accesses(db, used))

    def forget_changes(self, before_ns: int) -> asyncio.Future[None]:
        """Drop recorded changes older than `before_ns` (wall)."""
        return self._writes.put(lambda db: changes.forget(db, before_ns, self._lost()))

    def lower_changes(self, now_ns: int) -> asyncio.Future[int]:
        """Lower the times of changes later than `now_ns` (wall) to it. Gives how many."""
        return self._writes.put(lambda db: changes.lower(db, now_ns))

    def later_rows(self, now: Now, after: EntryKey, limit: int) -> list[Row]:
        """Return rows behind `after` that were put or used later than `now`. Blocks."""
        sql = (
            f"SELECT {COLUMNS} FROM entries WHERE (namespace, id) > (?, ?)"  # noqa: S608
            " AND (as_of_ns > ? OR last_access_ns > ?) ORDER BY namespace, id LIMIT ?"
        )
        values = (*after, *now, limit)
        return self._read(lambda db: list(rows.readable_rows(db.execute(sql, values))))

    @property
    def used_bytes(self) -> int:
        return sum(total.stored_bytes for total in self.totals.values())

    @property
    def all_have_sums(self) -> bool:
        """Return whether every row and record of the first release has its checksum."""
        return bool(self._facts.all_have_sums)

    def add_sums(self) -> asyncio.Future[bool]:
        """Add checksums to the next rows of the first release. Gives whether all have one."""

        def run(db: sqlite3.Connection) -> bool:
            if self._entry_with_sum is not None:
                self._entry_with_sum = rows.add_sums(db, self._entry_with_sum, EVICT_BATCH)
            elif self._change_with_sum is not None:
                self._change_with_sum = changes.add_sums(db, self._change_with_sum, EVICT_BATCH)
            else:
                self._draft.all_have_sums = 1
            return bool(self._draft.all_have_sums)

        return self._writes.put(run)

    def trim_set_aside(self, wall_ns: int) -> None:
        """Remove a catalog that was set aside long ago. Blocks; raises OSError."""
        trim_catalog_set_aside(self._file.path, wall_ns)

    def erase_set_aside(self) -> None:
        """Remove a catalog that was set aside, durably. Blocks; raises OSError."""
        erase_catalog_set_aside(self._file.path)

    def lost_names(self) -> list[Path]:
        """Return the paths that no longer lead to the files opened by them. Blocks."""
        return self._file.lost_names()

    @property
    def queue_depth(self) -> int:
        return self._writes.depth

    def close(self) -> None:
        """Finish what is queued and close. Blocks."""
        self._writes.close()
        # The writer closes last: the last connection to close empties the log.
        for reader in self._readers:
            reader.close()
        if self._db is not None:
            self._db.close()
        self._file.close()


def _not_durable(exc: Exception) -> NotDurable:
    says = str(exc) if isinstance(exc, NameLost) else "free some disk space"
    error = NotDurable(f"the catalog cannot be written; {says}")
    error.__cause__ = exc
    return error
