"""Kills an engine at random moments, again and again: `python -m tests.crash.kill_cycles`.

Each life examines what its predecessor left, then works until it is killed, or until its disks lose
their power (`--power ext4`). The program prints what was done within `--minutes`, as counts in
JSON; a broken promise ends it with the seed that reproduces the failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.ledger import Event, Ledger
from tests.crash.life import Life
from tests.crash.mortal import LifeFailed, Mortal
from tests.support.lossy_disk import LossyDisk, lossy_disk

# Some lives die while they start: opening and examining take some 10 ms.
DIES_AT_START = 0.2
START_S = 0.012
MOST_EVENTS = 60
MOST_DELAY_S = 0.003


@dataclass
class Cycles:
    """Kills of engines on one pair of directories."""

    folder: Path
    runtime: Path
    seed: int
    disks: list[LossyDisk] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    killed: int = 0

    def run(self, count: int, until_s: float = math.inf) -> None:
        """Kill `count` times, or until that moment (monotonic)."""
        choose = random.Random(self.seed)
        while self.killed < count and time.monotonic() < until_s:
            self._one(choose)
        self._last()

    def _one(self, choose: random.Random) -> None:
        mortal = Mortal(self._life(choose.random(), then_work=True), self.ledger)
        if choose.random() < DIES_AT_START:
            for _ in mortal.told(choose.random() * START_S):
                pass
        else:
            events = choose.randint(1, MOST_EVENTS)
            for number, _ in enumerate(mortal.told(), 1):
                if number >= events:
                    break
            for _ in mortal.told(choose.random() * MOST_DELAY_S):
                pass
        self._end(mortal)
        self.killed += 1

    def _end(self, mortal: Mortal) -> None:
        if self.disks:
            mortal.stop()  # a power cut ends the process and its disks at the same moment
        for disk in self.disks:
            disk.cut_power()
        mortal.kill()
        for disk in self.disks:
            disk.take_away()
            disk.switch_on()

    def _last(self) -> None:
        """Open and examine what the last death left; this life is not killed."""
        Mortal(self._life(0.0, then_work=False), self.ledger).bury()

    def _life(self, seed: float, *, then_work: bool) -> Callable[[Callable[[Event], None]], None]:
        def live(tell: Callable[[Event], None]) -> None:
            asyncio.run(self._live(tell, random.Random(seed), then_work=then_work))

        return live

    async def _live(
        self, tell: Callable[[Event], None], choose: random.Random, *, then_work: bool
    ) -> None:
        life = Life(self.folder, self.runtime, self.ledger, tell, choose)
        life.open()
        await life.examine()
        if then_work:
            await life.work()
        await life.house.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=math.inf, help="no longer than that")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--power", choices=("ext4", "xfs"))
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm")
        )
        cycles = Cycles(asked.folder, Path(runtime), asked.seed)
        if asked.power:
            # Two filesystems: the journal of one alone would keep the catalog and the files in
            # step.
            for name in ("l2", "state"):
                disk = stack.enter_context(lossy_disk(asked.power, asked.folder / name))
                cycles.disks.append(disk)
        started_s = time.monotonic()
        failure = ""
        try:
            cycles.run(asked.cycles, started_s + 60 * asked.minutes)
        except LifeFailed as exc:
            last = "".join(event.line().decode() for event in cycles.ledger.last)
            failure = f"seed {asked.seed}, after {cycles.killed} kills: {exc}\n{last}"
        took_s = time.monotonic() - started_s
    json.dump(
        {
            "killed": cycles.killed,
            "answered": cycles.ledger.counts,
            "ms_a_cycle": round(1000 * took_s / max(1, cycles.killed), 1),
            "failure": failure,
        },
        sys.stdout,
    )
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
