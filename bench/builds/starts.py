"""The command: `python -m bench.builds.starts --before DIR`. ../README.md says how to read it.

It times `cachesvc serve` from its start to /readyz, then the first Get from L2 and the first Get
that asks the origin; for this build and, twice, for the checkout in DIR, in turns. Beside the
elapsed time stands the processor time until ready, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from bench.builds.checkout import Checkout
from bench.builds.verdict import BUILDS
from bench.worker import TMPFS
from cachesvc_client import CacheClient, LocalOptions
from tests.support import sample_objects
from tests.support.daemons import s3_settings
from tests.support.s3.servers import running_s3_server
from tests.support.server_processes import ReservedPort

ROOT = Path(__file__).parents[2]
ORIGINS = ("directory", "s3")
COLUMNS = ("ready", "ready, processor", "first from L2", "first from the origin")
MOST_OF_READY = 0.75
_WITHIN_S = 60.0
_POLL_S = 0.001


class Build:
    """One build's daemon, started and ended once in each round, on the same directories."""

    def __init__(self, root: Path, folder: Path, settings: Mapping[str, str]) -> None:
        checkout = Checkout(root)
        checkout.check()
        self._command = (checkout.python, "-m", "cachesvc", "serve")
        self._port = ReservedPort()
        run = folder / "run"
        run.mkdir(mode=0o750)
        own = {
            "RUNTIME_DIR": str(run),
            "STATE_DIR": str(folder / "state"),
            "L2__ROOT": str(folder / "l2"),
            "L2__FREE_FLOOR_BYTES": "0",
            "L1__MAX_BYTES": str(256 << 20),
            "L1__REWARM": "false",
            "HTTP__LISTEN": f"127.0.0.1:{self._port.number}",
            "LOG_LEVEL": "error",
        }
        self._options = checkout.popen_options({**settings, **own})
        self._target = f"unix:{run}/cachesvc.sock"

    def turn(self, stored: str, fresh: str) -> tuple[float, float, float, float]:
        """Start the daemon, get `stored`, then `fresh`, and end the daemon. Return COLUMNS in
        ms.
        """
        started = time.perf_counter()
        process = subprocess.Popen(self._command, **self._options)
        try:
            self._wait_until_ready(process)
            ready_s = time.perf_counter() - started
            used = psutil.Process(process.pid).cpu_times()
            gets_s = [self._first_get(user) for user in (stored, fresh)]
        finally:
            process.terminate()
            process.wait(_WITHIN_S)
        return (1e3 * ready_s, 1e3 * (used.user + used.system), 1e3 * gets_s[0], 1e3 * gets_s[1])

    def _first_get(self, user: str) -> float:
        # Inline: a client that has just been made has not found the files yet.
        with CacheClient(self._target, local=LocalOptions(enabled=False)) as client:
            client.stats()  # connects
            started = time.perf_counter()
            client.get_human(user)
            return time.perf_counter() - started

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        url = f"http://127.0.0.1:{self._port.number}/readyz"
        give_up = time.monotonic() + _WITHIN_S
        while time.monotonic() < give_up and process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(url, timeout=_WITHIN_S):
                return
            time.sleep(_POLL_S)
        raise SystemExit("a build did not become ready; what it said stands above")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.builds.starts", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, metavar="DIR", help="the older build")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--origins", nargs="+", choices=ORIGINS, default=list(ORIGINS))
    chosen = parser.parse_args(arguments)
    holds = [_measure(origin, chosen.before.resolve(), chosen.rounds) for origin in chosen.origins]
    return 0 if all(holds) else 1


def _measure(origin: str, before: Path, rounds: int) -> bool:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-bench-")))
        users = [f"user-{number}" for number in range(rounds + 2)]
        samples = [sample_objects.person(user, sizes=sample_objects.REAL) for user in users]
        if origin == "directory":
            sample_objects.put_in_folder(folder, *samples)
            settings = {"ORIGIN__KIND": "directory", "ORIGIN__PATH": str(folder)}
        else:
            server = stack.enter_context(running_s3_server())
            bucket = server.new_bucket()
            sample_objects.put_in_bucket(server, bucket, *samples)
            settings = s3_settings(server, bucket)
            os.environ.update(server.credentials())
        builds = {}
        for name, root in zip(BUILDS, (before, before, ROOT), strict=True):
            own = stack.enter_context(tempfile.TemporaryDirectory(prefix="cachesvc-", dir=TMPFS))
            builds[name] = Build(root, Path(own), settings)
            builds[name].turn(users[0], users[1])  # fills L2 and the page cache
        found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in BUILDS}
        for number in range(rounds):
            by = number % len(BUILDS)
            for name in (*BUILDS[by:], *BUILDS[:by]):
                found[name].append(builds[name].turn(users[0], users[number + 2]))
    return _show(origin, found)


def _show(origin: str, found: Mapping[str, list[tuple[float, float, float, float]]]) -> bool:
    print(f"\norigin: {origin}; medians in ms of {len(found[BUILDS[0]])} rounds")
    medians = {
        name: [statistics.median(column) for column in zip(*turns, strict=True)]
        for name, turns in found.items()
    }
    for name in BUILDS:
        figures = (f"{c} {m:,.1f}" for c, m in zip(COLUMNS, medians[name], strict=True))
        print(f"{name:>12}: {'; '.join(figures)}")
    before, again, now = (medians[name] for name in BUILDS)
    for number, column in enumerate(COLUMNS):
        aa = again[number] / before[number]
        print(f"{column}: now / before {now[number] / before[number]:.3f}; before twice {aa:.3f}")
    return bool(now[0] <= MOST_OF_READY * before[0])


if __name__ == "__main__":
    sys.exit(main())
