"""The catalog's facts: its identity, its last commit, and each namespace's totals.

One row of facts is written with every commit. Plain functions on a connection.
"""

from __future__ import annotations

import sqlite3
from dataclasses import astuple, dataclass

from cachesvc.tiers.catalog_damage import UnreadableRow
from cachesvc.tiers.catalog_schema import sum_of
from cachesvc_format.names import is_id

_FACTS = (
    "catalog_id, commits, last_write_ns, last_write_steady_ns, last_generation, boot_id,"
    " ended_cleanly, acknowledge_from_ns, all_have_sums"
)


@dataclass(slots=True)
class Facts:
    """The catalog's own facts, as of its last commit.

    `last_write_ns` is wall time, `last_write_steady_ns` and `acknowledge_from_ns` are steady.
    `boot_id` is from the last daemon's control page.
    """

    catalog_id: bytes
    commits: int
    last_write_ns: int
    last_write_steady_ns: int
    last_generation: int
    boot_id: bytes
    ended_cleanly: int
    acknowledge_from_ns: int
    all_have_sums: int


_TYPES = (bytes, int, int, int, int, bytes, int, int, int)


@dataclass(frozen=True, slots=True)
class Total:
    """One namespace's rows and their bytes on disk."""

    entries: int = 0
    stored_bytes: int = 0


def read(db: sqlite3.Connection) -> Facts:
    """Return the facts. Raises UnreadableRow."""
    found = db.execute(f"SELECT {_FACTS}, row_sum FROM facts").fetchall()  # noqa: S608 constants
    if len(found) == 1:
        *values, row_sum = found[0]
        types_fit = all(map(isinstance, values, _TYPES))
        if types_fit and row_sum == sum_of(*values):
            return Facts(*values)
    raise UnreadableRow("the catalog's facts cannot be understood")


def write(db: sqlite3.Connection, facts: Facts) -> None:
    values = astuple(facts)
    marks = ", ".join("?" * (len(values) + 1))
    db.execute(
        f"UPDATE facts SET ({_FACTS}, row_sum) = ({marks})",  # noqa: S608 constants
        (*values, sum_of(*values)),
    )


def totals(db: sqlite3.Connection) -> dict[str, Total]:
    """Return each namespace's total. Raises UnreadableRow."""
    found = db.execute("SELECT namespace, entries, stored_bytes, row_sum FROM totals").fetchall()
    for *values, row_sum in found:
        if row_sum != sum_of(*values) or min(values[1:]) < 0:
            raise UnreadableRow("totals cannot be understood")
    return {namespace: Total(*rest) for namespace, *rest, _ in found}


def add_to_total(db: sqlite3.Connection, namespace: str, entries: int, size: int) -> None:
    known = totals(db).get(namespace, Total())
    values = (namespace, known.entries + entries, known.stored_bytes + size)
    db.execute("REPLACE INTO totals VALUES (?, ?, ?, ?)", (*values, sum_of(*values)))


def recount(db: sqlite3.Connection) -> None:
    """Count all rows again and store the totals, after a spoilt row was deleted."""
    counted = db.execute(
        "SELECT namespace, count(*), CAST(sum(stored_bytes) AS INTEGER)"
        " FROM entries GROUP BY namespace"
    ).fetchall()
    db.execute("DELETE FROM totals")
    for values in counted:
        if not (isinstance(values[0], str) and is_id(values[0])):
            continue  # a spoilt row's name; that row will be deleted later
        db.execute("REPLACE INTO totals VALUES (?, ?, ?, ?)", (*values, sum_of(*values)))
