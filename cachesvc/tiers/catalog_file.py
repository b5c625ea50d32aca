"""The catalog's file: opened and brought to the newest schema, or set aside.

A file that SQLite refuses to open is damaged, unless a full disk, a lock or a missing right
is the cause. Believe in damage only when a second attempt finds it too.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from cachesvc.core.errors import ConfigError
from cachesvc.tiers import anchors
from cachesvc.tiers import catalog_damage as damage
from cachesvc.tiers import catalog_facts as facts
from cachesvc.tiers import catalog_schema as schema
from cachesvc.tiers.anchors import Anchor
from cachesvc.tiers.catalog_facts import Facts, Total
from cachesvc.tiers.witness import Commit, Witness

log = structlog.get_logger()
FILE_NAME = "catalog.sqlite"
BUSY_TIMEOUT_S = 5.0
_SUFFIXES = ("", "-wal", "-shm")


class Damaged(Exception):
    """The catalog's file is not a database of ours any more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A writing connection, and what the catalog said when it was opened."""

    db: sqlite3.Connection
    facts: Facts
    totals: dict[str, Total]


class CatalogFile:
    """The database in one directory. Errors are OSError and sqlite3.Error, except where said."""

    def __init__(
        self, directory: Path, witnesses: Sequence[Witness] = (), others: Sequence[Anchor] = ()
    ) -> None:
        """`others` are further paths that have to lead to what is committed."""
        self.path = directory / FILE_NAME
        self._witnesses = witnesses
        self._others = others
        self._anchors: tuple[Anchor, ...] = ()

    def check_names(self) -> None:
        """Raise ConfigError for a link or a FIFO, which SQLite would follow, or wait for."""
        for suffix in (*_SUFFIXES, "-journal"):
            path = Path(f"{self.path}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISREG(path.lstat().st_mode):
                    raise ConfigError(f"{path}: is not a regular file; remove it")

    def open_undamaged(self) -> Opened:
        """Open the database. Raises Damaged; for a full disk or a lock, sqlite3.Error."""
        try:
            return self._open()
        except sqlite3.Error as exc:
            if damage.is_damage_at_open(exc, self.path):
                raise Damaged(str(exc)) from exc
            raise

    def open_twice(self) -> Opened:
        """Open the database. Raises Damaged only when a second attempt finds damage too.

        SQLite reports a transient read error (EIO) as corruption.
        """
        with contextlib.suppress(Damaged):
            return self.open_undamaged()
        return self.open_undamaged()

    def _open(self) -> Opened:
        db = damage.connect(str(self.path), timeout_s=BUSY_TIMEOUT_S)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA journal_size_limit = 67108864")
            is_new = schema.migrate(db)
            opened = Opened(db, facts.read(db), facts.totals(db))
            if not is_new:
                self._check_witnesses(opened.facts)
            # SQLite holds both files open, so no other file gets their inode numbers.
            own = (Anchor(Path(f"{self.path}{suffix}")) for suffix in ("", "-wal"))
            self._anchors = (*own, *self._others)
            return opened
        except BaseException:  # whatever failed, no other code closes it
            db.close()
            raise

    # ---- witnesses and anchors

    def _check_witnesses(self, found: Facts) -> None:
        """Raise Damaged if a witness has seen a later commit than this catalog's last."""
        commit = Commit(found.catalog_id, found.commits)
        if any(witness.contradicts(commit) for witness in self._witnesses):
            raise Damaged("an older state than the last one: a snapshot, or a log cut short")

    def note(self, committed: Facts) -> None:
        """Tell the witnesses of a commit, before it is acknowledged."""
        commit = Commit(committed.catalog_id, committed.commits)
        for witness in self._witnesses:
            with contextlib.suppress(OSError):  # a witness that missed it contradicts nothing
                witness.note(commit)

    def check_anchors(self) -> None:
        """Raise NameLost if a restart would not find what is committed."""
        anchors.check(self._anchors)

    def lost_names(self) -> list[Path]:
        return anchors.lost_of(self._anchors)

    def close(self) -> None:
        for witness in self._witnesses:
            witness.close()

    # ---- damage

    def is_damage(self, exc: sqlite3.Error) -> bool:
        """Return whether an error of an open connection means damage."""
        return damage.is_damage(exc) or damage.is_of_header(exc, self.path)

    def set_aside(self, why: str) -> None:
        """Rename the database and its log durably, so that they are never read again."""
        for suffix in _SUFFIXES:
            name = Path(f"{self.path}{suffix}")
            with contextlib.suppress(FileNotFoundError):
                # Only the latest is kept, for a person to look at.
                name.replace(f"{self.path}.damaged{suffix}")
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        log.error("catalog_set_aside", reason=why)
