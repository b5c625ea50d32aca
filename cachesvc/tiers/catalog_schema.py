"""The catalog's schema, as a list of migrations, and which of SQLite's errors mean damage.

Opening a catalog of an earlier version migrates it to the newest in one transaction: a crash
in the middle leaves the earlier version. Only newer versions are unknown.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from cachesvc.core.checksum import checksum

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


class UnknownSchema(sqlite3.DatabaseError):
    """A newer daemon wrote the catalog, or it is not a catalog of ours."""


class UnreadableRow(sqlite3.DatabaseError):
    """A row is not what was stored: SQLite has no checksums of its own."""


def sum_of(*values: object) -> int:
    """Return the checksum of a row's values and their types.

    It hashes Python's ASCII form of the tuple: 1, 1.0, '1', b'1' and None differ.
    """
    return checksum(ascii(values).encode())


class _Connection(sqlite3.Connection):
    """A connection that raises sqlite3.Error even where an error's text cannot be decoded.

    SQLite quotes a schema that lost a bit in its error, which Python then cannot decode.
    """

    def execute(self, *statement: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*statement)
        except UnicodeDecodeError as exc:
            raise UnreadableRow("the schema is not what was stored") from exc


def connect(path: str, *, timeout_s: float, uri: bool = False) -> sqlite3.Connection:
    """Open a connection. A text that is no UTF-8 any more is read all the same: its sum fails."""
    db = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        timeout=timeout_s,
        uri=uri,
        factory=_Connection,
    )
    db.text_factory = _text
    return db


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogateescape")


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


# ---- damage

# Errors that are not the file's fault: a full disk, a lock, a missing right. These pass.
_PASSING = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_ABORT,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_AUTH,
    }
)
# Raised for a missing right, and for a header with a version that SQLite cannot write.
_OF_RIGHTS_OR_HEADERS = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_CONSTRAINT,  # our statements violate none
    }
)
_PROBE_BYTES = 1 << 16  # what SQLite needs for its log's index, and more
# Parts of SQLite's messages about a spoilt schema.
_SCHEMA_IS_SPOILT = ("no such", "malformed", "unsupported file format")


def is_damage(exc: sqlite3.Error) -> bool:
    """Return whether the file is damaged; a full disk, a lock or an I/O error passes."""
    if isinstance(exc, UnknownSchema | UnreadableRow):
        return True
    code = _code_of(exc)
    if code == sqlite3.SQLITE_ERROR:
        return any(words in str(exc) for words in _SCHEMA_IS_SPOILT)
    return code in _DAMAGE


def is_damage_at_open(exc: sqlite3.Error, path: Path) -> bool:
    """As `is_damage`, at opening: only the file itself or its rights can be the cause."""
    if _code_of(exc) in _OF_RIGHTS_OR_HEADERS:
        return is_of_header(exc, path)
    return is_damage(exc) or _code_of(exc) not in _PASSING


def is_of_header(exc: sqlite3.Error, path: Path) -> bool:
    """Return whether SQLite refuses a file that can be written: its header is spoilt."""
    return _code_of(exc) in _OF_RIGHTS_OR_HEADERS and _can_be_written(path)


def _code_of(exc: sqlite3.Error) -> int:
    return int(getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _can_be_written(path: Path) -> bool:
    """Return whether we can write the file, its log, and new files beside them."""
    names = [Path(f"{path}{suffix}") for suffix in ("", "-wal", "-shm")]
    try:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.close(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK))
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as probe:
            # A full disk accepts a new name, but no bytes.
            return path.exists() and probe.write(bytes(_PROBE_BYTES)) == _PROBE_BYTES
    except OSError:
        return False
