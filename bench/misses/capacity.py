"""Does the number of L2's entries matter? The same calls on catalogs of different sizes.

SQL writes the rows, which are real; only rows that are read have files. The daemon's work on a row
does not depend on the files of other rows.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.misses import small_kind
from bench.misses.findings import Check, Finding
from bench.misses.small_kind import NAMESPACE, OWNER
from bench.misses.turns import S_TO_MS, Row, Way, take
from cachesvc.core.entry import Row as EntryRow
from cachesvc.core.watermarks import Watermarks
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.catalog_file import FILE_NAME
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.disk_files import DiskFiles
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.daemons import Daemon

ROWS = (1_000, 100_000, 1_000_000)
# The start of a larger catalog is reported, and has no bound.
MOST_ROWS_READY_AT_ONCE = 100_000
READ_IDS = [f"read-{number}" for number in range(200)]
ENTRY_BYTES = 4000
STARTS = 4
# The rows that one eviction step frees, in each of the catalogs.
EVICTED_ROWS = 50
READY_WITHIN_MS = 1000.0
_GIB = 1 << 30
# Like a row that a fill has written, except for the name; older than every real row.
_COPY = """
WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)
INSERT INTO entries
SELECT namespace, 'row-' || i, owner, generation - i, size_bytes, stored_bytes, checksum, stamps,
    begun_ns, origin_ns, confirmed_ns, base_ttl_s, explicit_ttl_s, kind_version, as_of_ns,
    accesses, last_access_ns - 1000000000 - i, expires_ns + i
FROM n, (SELECT * FROM entries WHERE namespace = ? AND id = 'read-0')
"""
_RECOUNT = """
UPDATE totals SET (entries, stored_bytes) =
    (SELECT COUNT(*), SUM(stored_bytes) FROM entries WHERE entries.namespace = totals.namespace)
"""


def measure(folder: Path, rounds: int) -> Iterator[Finding]:
    daemon = Daemon(folder, {**small_kind.settings(1), "L2__MAX_BYTES": str(50 * _GIB)})
    fresh = (f"fill-{number}" for number in itertools.count())
    try:
        _fill(daemon)
        smallest: dict[str, Row] = {}
        for count in ROWS:
            _grow(daemon.state_dir / FILE_NAME, count)
            # In turns, because a busy machine slows both.
            starts = take(
                {
                    "start": Way("start to /readyz", daemon.start, after=daemon.stop),
                    "imports": Way("a process that only imports the daemon", _import),
                },
                STARTS,
                warmup=0,
            )
            daemon.start()
            rows = _ask(daemon, fresh, rounds)
            daemon.stop()
            rows["eviction"] = _evict(folder / f"copy-{count}", daemon, rounds // 10)
            smallest = smallest or rows
            ready_ms = starts["start"].median_ms
            yield Finding(
                f"A catalog of {count:,} rows",
                [*starts.values(), *rows.values()],
                _ratios(rows, smallest),
                [Check("start to /readyz, imports included, ms", ready_ms, READY_WITHIN_MS)]
                if count <= MOST_ROWS_READY_AT_ONCE
                else [],
            )
    finally:
        daemon.close()


def _import() -> None:
    subprocess.run([sys.executable, "-c", "import cachesvc.app.daemon"], check=True)


def _fill(daemon: Daemon) -> None:
    """Fill the entries that are read later, as a daemon does."""
    small_kind.write_objects(daemon.origin_dir, READ_IDS, ENTRY_BYTES)
    daemon.start()
    for name in READ_IDS:
        _get(daemon, name)
    daemon.wait_until_stored()
    daemon.stop()


def _grow(catalog: Path, count: int) -> None:
    """Add rows until there are `count`."""
    db = sqlite3.connect(catalog)
    with db:
        present = db.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
        db.execute(_COPY, (present, count, NAMESPACE))
        db.execute(_RECOUNT)
    db.close()


def _ask(daemon: Daemon, fresh: Iterator[str], rounds: int) -> dict[str, Row]:
    turns = itertools.cycle(READ_IDS)
    names = list(itertools.islice(fresh, rounds + 1))
    small_kind.write_objects(daemon.origin_dir, names, ENTRY_BYTES)
    fills = iter(names)
    return take(
        {
            "lookup": Way("a hit in L2", lambda: _get(daemon, next(turns), expected=pb.TIER_DISK)),
            "fill": Way(
                "a fill", lambda: _get(daemon, next(fills)), after=daemon.wait_until_stored
            ),
        },
        rounds,
    )


def _get(daemon: Daemon, name: str, expected: pb.Tier = pb.TIER_ORIGIN) -> None:
    request = pb.GetRequest(key=pb.EntryKey(namespace=NAMESPACE, id=name), owner_id=OWNER)
    parts = list(daemon.stub().Get(request, timeout=10))
    assert parts[0].info.tier == expected


def _evict(folder: Path, daemon: Daemon, rounds: int) -> Row:
    """Time eviction steps on a full disk, on a copy: each frees EVICTED_ROWS rows."""
    folder.mkdir()
    shutil.copy(daemon.state_dir / FILE_NAME, folder)
    return asyncio.run(_steps(folder, max(3, rounds)))


async def _steps(folder: Path, rounds: int) -> Row:
    samples_ms = []
    files = DiskFiles(folder / "l2", (NAMESPACE,))
    catalog = Catalog(folder, on_reset=_must_not_happen)
    used_bytes = sum(total.stored_bytes for total in catalog.totals.values())
    freed_bytes = EVICTED_ROWS * used_bytes // sum(t.entries for t in catalog.totals.values())
    # The first step is not counted: it reads the copy from the disk.
    for step in range(-1, rounds):
        low_bytes = used_bytes - (step + 2) * freed_bytes
        marks = Watermarks(low_bytes, low_bytes, used_bytes)
        disk = DiskTier(files, catalog, marks, on_leaving=_ignore)
        started = time.perf_counter()
        await disk.evict(0)
        if step >= 0:
            samples_ms.append((time.perf_counter() - started) * S_TO_MS)
        assert disk.room.used_bytes <= low_bytes
    catalog.close()
    files.close()
    return Row(f"an eviction step of {EVICTED_ROWS} entries", samples_ms)


def _ignore(_row: EntryRow, _cause: object) -> None:
    pass


def _must_not_happen() -> None:
    raise AssertionError("the catalog is damaged")


def _ratios(rows: dict[str, Row], smallest: dict[str, Row]) -> dict[str, str]:
    return {
        f"{row.title} / at {ROWS[0]:,} rows": f"{row.median_ms / smallest[name].median_ms:.2f}"
        for name, row in rows.items()
    }
