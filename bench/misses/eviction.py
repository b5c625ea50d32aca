"""Does L2's eviction keep up with endless fills, on a full disk?

Callers fill a small L2 many times over with distinct entries, and wait for nothing but their
answers. Meanwhile a thread measures the disk from outside.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.misses import small_kind
from bench.misses.findings import Check, Finding
from bench.misses.small_kind import NAMESPACE, OWNER
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.daemons import Daemon, running_daemon

L2_BYTES = 100_000_000
ENTRY_BYTES = 1_000_000
ENTRIES = 1000
CALLERS = 8
MOST_REJECTED = 0.05
# V2 counted in these units too: blocks, as `du` has them.
_BLOCK_BYTES = 512
_LOOK_EVERY_S = 0.02


def measure(folder: Path, _rounds: int) -> Iterator[Finding]:
    settings = {**small_kind.settings(10), "L2__MAX_BYTES": str(L2_BYTES)}
    names = [f"entry-{number}" for number in range(ENTRIES)]
    with running_daemon(folder, settings) as daemon:
        small_kind.write_objects(daemon.origin_dir, names, ENTRY_BYTES)
        with _Watch(daemon.l2_root) as watch, ThreadPoolExecutor(CALLERS) as callers:
            started = time.perf_counter()
            for _ in callers.map(lambda name: _get(daemon, name), names):
                pass
            answered_s = time.perf_counter() - started
            daemon.wait_until_stored()
            stored_s = time.perf_counter() - started
        metrics = daemon.metrics()
        disk = daemon.stub().Stats(pb.StatsRequest(), timeout=5).disk
    rejected = metrics["cachesvc_disk_rejections_total"] / ENTRIES
    evicted = metrics['cachesvc_disk_removals_total{reason="disk_space"}']
    yield Finding(
        f"{ENTRIES:,} fills of {ENTRY_BYTES:,} bytes into an L2 of {L2_BYTES:,} bytes",
        facts={
            "answered": f"after {answered_s:.2f} s, {ENTRIES / answered_s:.0f} fills/s",
            "stored": f"after {stored_s:.2f} s",
            "evicted": f"{evicted:.0f} entries",
            "not admitted to L2": f"{rejected:.2%}",
            "most on disk": f"{watch.most_bytes:,} bytes, seen {watch.looks} times",
            "at the end, by the catalog": f"{disk.size_bytes:,} bytes, {disk.entries} entries",
        },
        checks=[
            Check("most bytes on disk / limit", watch.most_bytes / L2_BYTES, 1.0),
            Check("not admitted", rejected, MOST_REJECTED),
        ],
    )


def _get(daemon: Daemon, name: str) -> None:
    request = pb.GetRequest(key=pb.EntryKey(namespace=NAMESPACE, id=name), owner_id=OWNER)
    for _part in daemon.stub().Get(request, timeout=30):
        pass


class _Watch:
    """Sums up the files under a folder again and again. Use as a context manager."""

    def __init__(self, root: Path) -> None:
        self.most_bytes = 0
        self.looks = 0
        self._root = root
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch-l2")

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_S):
            # By inode: a file may be renamed into place during the walk.
            found = dict(
                _inode_and_bytes(Path(folder, name))
                # Unlike Path.glob, os.walk goes on after a directory has just been deleted.
                for folder, _, names in os.walk(self._root)
                for name in names
            )
            found_bytes = sum(found.values())
            self.most_bytes = max(self.most_bytes, found_bytes)
            self.looks += 1


def _inode_and_bytes(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_blocks * _BLOCK_BYTES
