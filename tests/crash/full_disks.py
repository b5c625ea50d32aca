"""Puts on disks that are full now and then: `python -m tests.crash.full_disks`.

L1's, L2's and the catalog's filesystems are real ones, each filled to the last byte and
freed again at random, and files may be limited in size, which ends writes in the middle.
Gets have to be served and invalidations answered throughout; a start afterwards examines
what L2 was said to have. Prints counts as JSON. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cachesvc.cli.serve import logs
from cachesvc.core.errors import CacheError
from tests.crash.ledger import Event, Ledger
from tests.crash.life import Life
from tests.crash.swatches import KEYS
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

SIZE_BYTES = 4 << 20
# SQLite empties its log into the database behind a commit, from 4 MB on: a filesystem that
# the log alone fills before that stays full.
STATE_BYTES = 3 * SIZE_BYTES
STEPS_BETWEEN_FAULTS = 10
STEPS_BETWEEN_INVALIDATIONS = 5
# Less than an entry, and than the catalog.
FILE_LIMIT_BYTES = 12 * 1024


class Faults:
    """Filesystems that are full, and files that may not grow, by turns."""

    def __init__(self, disks: list[SmallFilesystem]) -> None:
        self._disks = disks
        self._full: set[int] = set()
        self.count = 0

    def change(self, choose: random.Random) -> None:
        """Fill or free one of them, or let files grow or not; often all is well again."""
        if choose.random() < 0.4:
            self.end()
            return
        index = choose.randrange(len(self._disks) + 1)
        is_full = index in self._full
        if index == len(self._disks):
            _limit_files(resource.RLIM_INFINITY if is_full else FILE_LIMIT_BYTES)
        elif is_full:
            self._disks[index].free()
        else:
            self._disks[index].fill()
        self._full ^= {index}
        self.count += not is_full

    def end(self) -> None:
        _limit_files(resource.RLIM_INFINITY)
        for index in self._full - {len(self._disks)}:
            self._disks[index].free()
        self._full.clear()


def _limit_files(size_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))


@contextmanager
def small_disks(folder: Path) -> Iterator[tuple[Path, Path, list[SmallFilesystem]]]:
    """Give the folder of L2 and the catalog, the one of L1, and the three filesystems."""
    with ExitStack() as stack:
        runtime = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        sizes = {
            folder / "home" / "l2": SIZE_BYTES,
            folder / "home" / "state": STATE_BYTES,
            runtime / "l1": SIZE_BYTES,
        }
        disks = [stack.enter_context(small_filesystem(*place)) for place in sizes.items()]
        yield folder / "home", runtime, disks


async def put_on(folder: Path, runtime: Path, faults: Faults, puts: int) -> dict[str, int]:
    """Put so often, then start anew and examine. Returns what was answered, and not."""
    choose, ledger, refused = random.Random(8), Ledger(), 0

    def forget(event: Event) -> None:
        """Nobody dies here: the ledger is the life's own."""

    life = Life(folder, runtime, ledger, forget, choose)
    life.open()
    for number in range(puts):
        if number % STEPS_BETWEEN_FAULTS == 0:
            faults.change(choose)
        try:
            await life.put(choose.choice(KEYS))
        except CacheError:
            refused += 1
        await life.look_up(choose.choice(KEYS))
        if number % STEPS_BETWEEN_INVALIDATIONS == 0:
            await life.invalidate(choose.choice(KEYS))
    assert life.house.metrics.value("damaged_entries") == 0
    faults.end()
    await life.house.end()
    successor = Life(folder, runtime, ledger, forget, choose)
    successor.open()
    await successor.examine()
    await successor.house.end()
    return {**ledger.counts, "refused": refused, "faults": faults.count}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--puts", type=int, default=150)
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    report: dict[str, object] = {"failure": ""}
    # As the daemon's: a log whose file may not grow either fails nothing.
    logs.configure("json", "info")
    with small_disks(asked.folder) as (folder, runtime, disks):
        faults = Faults(disks)
        try:
            report["answered"] = asyncio.run(put_on(folder, runtime, faults, asked.puts))
        except Exception:  # noqa: BLE001 whatever it was, it is the report
            report["failure"] = traceback.format_exc()
        finally:
            faults.end()
    json.dump(report, sys.stdout)
    return 1 if report["failure"] else 0


if __name__ == "__main__":
    sys.exit(main())
