"""Which of SQLite's errors mean that the catalog is damaged?

A full disk, a lock and an I/O error go away and are no damage. A damaged catalog is set aside.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

# Errors of a sound file: a full disk, a lock, a missing right. They go away.
_OF_A_SOUND_FILE = frozenset(
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
        sqlite3.SQLITE_CONSTRAINT,  # our statements violate no constraint
    }
)
_PROBE_BYTES = 1 << 16  # what SQLite needs for its log's index, and more
# Parts of SQLite's messages about a spoilt schema.
_SCHEMA_IS_SPOILT = ("no such", "malformed", "unsupported file format")


class UnknownSchema(sqlite3.DatabaseError):
    """A newer daemon wrote the catalog, or it is not a catalog of ours."""


class UnreadableRow(sqlite3.DatabaseError):
    """A row is not what was stored: SQLite has no checksums of its own."""


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
    """Open a connection. It also reads text that is not UTF-8 any more, whose sum does not fit."""
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


def is_damage(exc: sqlite3.Error) -> bool:
    """Return whether the error means that the file is damaged."""
    if isinstance(exc, UnknownSchema | UnreadableRow):
        return True
    code = _code_of(exc)
    if code == sqlite3.SQLITE_ERROR:
        return any(words in str(exc) for words in _SCHEMA_IS_SPOILT)
    return code in _DAMAGE


def is_damage_at_open(exc: sqlite3.Error, path: Path) -> bool:
    """As `is_damage`, for an error of opening: its cause is the file itself or its rights."""
    if _code_of(exc) in _OF_RIGHTS_OR_HEADERS:
        return is_of_header(exc, path)
    return is_damage(exc) or _code_of(exc) not in _OF_A_SOUND_FILE


def is_of_header(exc: sqlite3.Error, path: Path) -> bool:
    """Return whether SQLite refuses a file that we can write: then its header is spoilt."""
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
