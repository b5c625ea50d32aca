"""How does a test get a catalog of very many rows, and how much may a start on it cost?"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from cachesvc.tiers import catalog_schema


def multiply_row(catalog: Path, like: str, count: int) -> None:
    """Copy the row of the id `like` under `count` other ids, and keep the totals right.

    The daemon must not run meanwhile.
    """
    with contextlib.closing(sqlite3.connect(catalog)) as db, db:
        columns = [row[1] for row in db.execute("PRAGMA table_info(entries)")]
        values = ["id || '-' || n" if name == "id" else name for name in columns]
        db.execute(
            "WITH RECURSIVE numbers (n) AS"
            f" (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})"
            f" INSERT INTO entries ({', '.join(columns)})"
            f" SELECT {', '.join(values)} FROM entries, numbers WHERE id = ?",
            (like,),
        )
        db.create_function("sum_of", -1, catalog_schema.sum_of)
        own, of_use = (
            ", ".join(column.name for column in columns)
            for columns in (catalog_schema._OWN, catalog_schema._OF_USE)
        )
        db.execute(
            f"UPDATE entries SET row_sum = sum_of({own}),"
            f" use_sum = sum_of(namespace, id, generation, {of_use})"
        )
        db.execute(
            "UPDATE totals SET (entries, stored_bytes) = (SELECT count(*), sum(stored_bytes)"
            " FROM entries WHERE entries.namespace = totals.namespace)"
        )
        db.execute("UPDATE totals SET row_sum = sum_of(namespace, entries, stored_bytes)")


def most_cpu_s(empty_cpu_s: float) -> float:
    """Return the processor time that a start on such a catalog may take, given that of an empty
    one.

    Imports take most of both, and take longer on a busy machine; the time that passes would say
    nothing about the daemon.
    """
    return 1.5 * empty_cpu_s + 0.3
