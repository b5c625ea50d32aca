"""The command: `python -m bench.misses`. docs/performance-misses.md says how to read it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import machine
from bench.misses import capacity, cold, disk_hits, eviction, faults, findings, misbehaving, waiters
from bench.misses.findings import Finding

RESULTS = Path(".bench/misses.json")
WIDTH = 110


@dataclass(frozen=True)
class Part:
    """One part of the benchmark. `measure` gets an empty folder and a number of rounds."""

    measure: Callable[[Path, int], Iterator[Finding]]
    rounds: int
    quick_rounds: int


PARTS = {
    "cold": Part(cold.measure, 30, 3),
    "disk": Part(disk_hits.measure, 60, 10),
    "waiters": Part(waiters.measure, 5, 2),
    "capacity": Part(capacity.measure, 100, 20),
    "eviction": Part(eviction.measure, 1, 1),
    "faults": Part(faults.measure, 5, 1),
    "misbehaving": Part(misbehaving.measure, 5, 1),
}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parse(arguments)
    console = Console(width=WIDTH)
    described = machine.describe()
    console.print(", ".join(f"{name} {value}" for name, value in described.items()))
    if warning := machine.load_warning(described):
        console.print(f"warning: {warning}")
    found = []
    for name in chosen.only:
        part = PARTS[name]
        # On a disk, as L2 is: /tmp may be memory.
        with tempfile.TemporaryDirectory(prefix="cachesvc-bench-", dir="/var/tmp") as folder:
            rounds = part.quick_rounds if chosen.quick else part.rounds
            for finding in part.measure(Path(folder), rounds):
                findings.show(console, finding)
                found.append(finding)
    findings.write(RESULTS, found, described)
    console.print(f"\nwritten to {RESULTS}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.misses", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="a short trial, not a measurement")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
