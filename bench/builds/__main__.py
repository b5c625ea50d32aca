"""The command: `python -m bench.builds --before DIR`. ../README.md says how to read it.

DIR is a checkout of the build before. Its `.venv` runs it if it has one, otherwise this Python.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.builds import one_build
from bench.builds.checkout import Checkout
from bench.builds.verdict import BUILDS, Verdict, judge
from bench.misses import slow_link, wardrobe
from bench.report import significant
from bench.worker import TMPFS
from tests.support.daemons import s3_settings
from tests.support.s3.servers import running_s3_server

ROOT = Path(__file__).parents[2]
RESULTS = Path(".bench/builds.json")
WIDTH = 110
FAR_MS = 20


@dataclass(frozen=True)
class Plan:
    """The calls of one kind: `calls` in each of `rounds`, after `warmup` untimed ones."""

    title: str
    rounds: int
    calls: int
    warmup: int


PLANS = {
    "local": Plan("a local hit", 20, 300, 30),
    "first": Plan("a first Get, shared file", 20, 48, 24),
    "inline": Plan("an inline Get from L1", 20, 15, 3),
    "disk": Plan("a Get from L2", 20, 10, 2),
    "cold": Plan(f"a cold try-on, S3 {FAR_MS} ms away", 20, 2, 0),
}
QUICK_ROUNDS = 3


class Build:
    """One build in a process of its own, measured in one way."""

    def __init__(self, root: Path, way: str, folder: Path, settings: Mapping[str, str]) -> None:
        checkout = Checkout(root)
        checkout.check()
        self._process: subprocess.Popen[str] = subprocess.Popen(
            (checkout.python, one_build.__file__, way, str(folder)),
            **checkout.popen_options(settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        self._receive()

    def measure(self, warmup: int, calls: int) -> list[int]:
        """Return the times of `calls` in ns."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{warmup} {calls}\n")
        self._process.stdin.flush()
        times: list[int] = json.loads(self._receive())
        return times

    def _receive(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a build ended before its time; what it said stands above")
        return line

    def close(self) -> None:
        self._process.communicate()


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parse(arguments)
    console, status = Console(width=WIDTH), Console(stderr=True)
    described = machine.describe()
    console.print(", ".join(f"{name} {value}" for name, value in described.items()))
    if warning := machine.load_warning(described):
        console.print(f"warning: {warning}")
    verdicts = []
    with _origins() as origins:
        for way in chosen.only:
            with status.status(way) as line:
                plan = PLANS[way]
                rounds = QUICK_ROUNDS if chosen.quick else plan.rounds
                settings = origins["s3" if way == "cold" else "directory"]
                samples: dict[str, list[list[int]]] = {name: [] for name in BUILDS}
                with _running(chosen.before, way, settings) as builds:
                    for number in range(rounds):
                        line.update(f"{plan.title}: round {number + 1} of {rounds}")
                        # Each build is first, second and last equally often.
                        for name in _rotated(BUILDS, number):
                            samples[name].append(builds[name].measure(plan.warmup, plan.calls))
            verdicts.append(judge(way, samples))
            show(console, verdicts[-1])
    _write(chosen.results, verdicts, described)
    console.print(f"\nwritten to {chosen.results}")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.builds", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="the older build")
    parser.add_argument("--only", nargs="+", choices=PLANS, default=list(PLANS))
    parser.add_argument("--quick", action="store_true", help="a short trial, not a measurement")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    chosen = parser.parse_args(arguments)
    chosen.before = chosen.before.resolve()
    if not (chosen.before / "cachesvc").is_dir():
        parser.error(f"{chosen.before} is no checkout of this product")
    return chosen


@contextmanager
def _origins() -> Iterator[dict[str, dict[str, str]]]:
    """Return the settings of a folder and of an S3, both with the same people and garments."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-bench-")))
        objects = wardrobe.make(folder)
        person = folder / "users" / wardrobe.USER
        for name in one_build.PEOPLE:
            shutil.copytree(person, folder / "users" / name)
        server = stack.enter_context(running_s3_server())
        bucket, client = server.new_bucket(), server.client()
        for key, data in objects.items():
            first = key.replace(wardrobe.USER, one_build.PEOPLE[0])
            client.put_object(Bucket=bucket, Key=first, Body=data)
        port = urlsplit(server.endpoint_url).port
        assert port is not None
        endpoints = stack.enter_context(slow_link.running(port, [FAR_MS]))
        os.environ.update(server.credentials())
        yield {
            "directory": {"ORIGIN__KIND": "directory", "ORIGIN__PATH": str(folder)},
            "s3": s3_settings(server, bucket, endpoints[FAR_MS]),
        }


@contextmanager
def _running(before: Path, way: str, settings: Mapping[str, str]) -> Iterator[dict[str, Build]]:
    """Start the three daemons, each with directories of its own in memory."""
    roots = dict(zip(BUILDS, (before, before, ROOT), strict=True))
    with ExitStack() as stack:
        builds = {}
        for name, root in roots.items():
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-", dir=TMPFS))
            )
            (folder / "run").mkdir(mode=0o750)
            builds[name] = Build(root, way, folder, settings)
            stack.callback(builds[name].close)
            builds[name].wait_until_ready()
        yield builds


def _rotated(names: Sequence[str], by: int) -> list[str]:
    by %= len(names)
    return [*names[by:], *names[:by]]


def show(console: Console, verdict: Verdict) -> None:
    """Print one kind's table, and whether this build is as fast as the one before."""
    table = Table(title=PLANS[verdict.way].title, title_justify="left")
    for heading in ("build", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="left" if heading == "build" else "right")
    for build in BUILDS:
        table.add_row(
            build, significant(verdict.p50s_ms[build]), significant(verdict.p99s_ms[build])
        )
    console.print(table)
    low, high = verdict.aa_spread
    console.print(
        f"now / before: {verdict.ratio:.3f}; before again / before: {verdict.aa_ratio:.3f}, in "
        f"nine rounds of ten {low:.3f} - {high:.3f}: {'no slower' if verdict.holds else 'SLOWER'}"
    )


def _write(path: Path, verdicts: Sequence[Verdict], described: dict[str, str]) -> None:
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "ways": [
            asdict(verdict)
            | {"ratio": verdict.ratio, "aa_spread": verdict.aa_spread, "holds": verdict.holds}
            for verdict in verdicts
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
