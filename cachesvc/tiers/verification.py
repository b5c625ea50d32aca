"""Checks beside a running daemon that L2's files are what their rows say, byte for byte.

If a file is wrong, its row is read again:
checker: row, generation 7 | daemon: evicts 7 (row, then file) | checker: no file -> gone, fine
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cachesvc.core.entry import Row
from cachesvc.core.errors import CorruptEntry
from cachesvc.tiers.catalog_view import CatalogView
from cachesvc.tiers.disk_files import DiskFiles, Location


class Verdict(StrEnum):
    """How the check of one row ended."""

    INTACT = "intact"
    DAMAGED = "damaged"
    # Its file is gone, for example by V2's clean-up by age: the next Get is a miss.
    MISSING = "missing"
    UNREADABLE = "unreadable"
    # Evicted, replaced or invalidated while it was checked.
    CHANGED = "changed"


BAD = frozenset({Verdict.DAMAGED, Verdict.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Check:
    """One row's verdict; `detail` says what is wrong."""

    row: Row
    verdict: Verdict
    detail: str = ""


def check_entry(view: CatalogView, files: DiskFiles, row: Row) -> Check:
    """Read the file of `row` from the medium and compare it with its checksum. Blocks."""
    meta = row.meta
    location = Location(meta.key, meta.generation)
    chunks = files.read_chunks(location, meta.size_bytes, meta.checksum, from_medium=True)
    try:
        for _ in chunks:
            pass
    except CorruptEntry as exc:
        found = Check(row, Verdict.DAMAGED, exc.message)
    except (FileNotFoundError, NotADirectoryError):
        found = Check(row, Verdict.MISSING)
    except OSError as exc:
        found = Check(row, Verdict.UNREADABLE, exc.strerror or str(exc))
    else:
        return Check(row, Verdict.INTACT)
    return found if view.generation(meta.key) == meta.generation else Check(row, Verdict.CHANGED)
