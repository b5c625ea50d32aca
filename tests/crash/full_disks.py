"""Puts on disks that are full now and then: `python -m tests.crash.full_disks`.

The filesystems of L1, L2 and the catalog are real ones. Each is filled to the last byte and freed
again at random, and a limit of file sizes ends writes in the middle. Throughout, Gets must be
served and invalidations answered; a start afterwards examines L2. Prints counts as JSON. Needs
root.
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
# SQLite moves its log into the database behind a commit, once the log has 4 MB. A filesystem that
# the log alone fills before that would stay full.
STATE_BYTES = 3 * SIZE_BYTES
STEPS_BETWEEN_FAULTS = 10
STEPS_BETWEEN_INVALIDATIONS = 5
# Less than an entry has, and less than the catalog.
FILE_LIMIT_BYTES = 12 * 1024


class Faults:
    """Filesystems that are full, and files that may not grow, in turn."""

    def __init__(self, disks: list[SmallFilesystem]) -> None:
        self._disks = disks
        self._full: set[int] = set()
        self.count = 0

    def change(self, choose: random.Random) -> None:
        """Fill or free a filesystem, or limit file sizes or not; often all faults end."""
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
    """Yield the folder of L2 and the catalog, the folder of L1, and the three filesystems."""
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
    """Put that often, then restart and examine. Return the counts of answers and refusals."""
    choose, ledger, refused = random.Random(8), Ledger(), 0

    def forget(event: Event) -> None:
        """No process dies here, so no second ledger is kept."""

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
    # As in the daemon: a log whose file may not grow makes no call fail.
    logs.configure("json", "info")
    with small_disks(asked.folder) as (folder, runtime, disks):
        faults = Faults(disks)
        try:
            report["answered"] = asyncio.run(put_on(folder, runtime, faults, asked.puts))
        except Exception:  # noqa: BLE001 - any error goes into the report
            report["failure"] = traceback.format_exc()
        finally:
            faults.end()
    json.dump(report, sys.stdout)
    return 1 if report["failure"] else 0


if __name__ == "__main__":
    sys.exit(main())
