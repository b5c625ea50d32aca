"""The command: `python -m bench`. Options: `python -m bench --help`; README.md says how to read
it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console

from bench import claims, machine, report, rounds
from bench.contenders import CONTENDERS
from bench.rounds import Plan
from bench.worker import WorkerFailed
from bench.workloads import PARTS

# Enough calls for a p99 that is not the slowest one, in a few minutes for all workloads.
FULL = Plan(rounds=10, calls=30, warmup=5)
QUICK = Plan(rounds=3, calls=10, warmup=3)
RESULTS = Path(".bench/results.json")
# Titles stay on one line, also if the output is not a terminal.
WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parse(arguments)
    default = QUICK if chosen.quick else FULL
    plan = Plan(chosen.rounds or default.rounds, chosen.calls or default.calls, default.warmup)
    console, status = Console(width=WIDTH), Console(stderr=True)
    described = machine.describe()
    report.show_machine(console, described, plan)
    outcomes = []
    try:
        for workload in chosen.entries:
            with status.status("") as line:
                outcome = rounds.run(workload, chosen.only, plan, line.update)
            report.show(console, outcome, chosen.baseline)
            outcomes.append(outcome)
    except WorkerFailed as exc:
        status.print(f"failed: {exc}", markup=False)
        return 1
    report.show_verdicts(console, claims.judge(outcomes))
    report.write(chosen.results, outcomes, described, plan, chosen.baseline)
    console.print(f"written to {chosen.results}")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", type=_names_in(CONTENDERS), metavar="ROW,...", help=", ".join(CONTENDERS)
    )
    parser.add_argument("--peers", action="store_true", help="run other projects' stores too")
    parser.add_argument(
        "--entries",
        type=_names_in(PARTS),
        default=list(PARTS),
        metavar="ENTRY,...",
        help=", ".join(PARTS),
    )
    parser.add_argument("--baseline", choices=CONTENDERS, default="local", metavar="ROW")
    parser.add_argument("--rounds", type=_count, help="turns of each row")
    parser.add_argument("--calls", type=_count, help="timed calls in a turn")
    parser.add_argument("--quick", action="store_true", help="a short trial, not a measurement")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    chosen = parser.parse_args(arguments)
    if chosen.only is None:
        chosen.only = [name for name, row in CONTENDERS.items() if chosen.peers or not row.peer]
    return chosen


def _names_in(known: Iterable[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: choose from {', '.join(known)}"
            )
        return chosen

    return names


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


if __name__ == "__main__":
    sys.exit(main())
