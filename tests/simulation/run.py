"""Runs seeds: `python -m tests.simulation.run --seeds 10000`, or one again: `--seed 4711 --log`."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog.testing

from tests.simulation.callers import Callers, clock_step_ns
from tests.simulation.history import History
from tests.simulation.linearizable import judge
from tests.simulation.quiet import LastCalls
from tests.simulation.scheduler import NothingLeftToRun, VirtualLoop
from tests.simulation.world import GRACE_NS, KEEP_EXPIRED_NS, Host, Life, new_origin

MAX_LIVES = 3
# The engine logs these if it meets a defect of its own.
DEFECTS = {"flight_failed", "invalidation_failed", "upkeep_defect"}
QUIET_WITHIN_S = 120.0


@dataclass(slots=True)
class Outcome:
    """What one seed did. `problems` is empty if every promise held."""

    seed: int
    trace: str = ""
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)


def run_seed(seed: int, *, keep_log: bool = False) -> Outcome:
    """Play one seed and judge it. The same seed plays the same way in every process."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="cachesvc-test-"))
    try:
        with structlog.testing.capture_logs() as logged:
            return _run(seed, folder, logged, keep_log=keep_log)
    finally:
        shutil.rmtree(folder)


def _run(seed: int, folder: Path, logged: list[Any], *, keep_log: bool) -> Outcome:
    choose = random.Random(seed)
    history, outcome = History(), Outcome(seed)
    origin = new_origin(history, choose)
    host = Host.drawn(choose)
    lives = choose.randint(1, MAX_LIVES)
    began_ns, trace = 0, hashlib.blake2b(digest_size=16)
    wall_off_ns = 0
    for number in range(lives):
        loop = VirtualLoop(choose, began_ns)
        loop.log = outcome.log if keep_log else None
        wall_off_ns += choose.choice((0, 0, clock_step_ns(choose)))
        life = Life(folder, host, origin, loop, choose, wall_off_ns)
        callers = Callers(life, history, origin, choose)
        is_last = number == lives - 1
        try:
            loop.run_until_complete(_live(life, callers, choose, is_last=is_last))
            outcome.counts["refused writes"] += life.writes.failed
            host.refused_writes.append(life.writes.failed)
            if is_last:
                was_full = outcome.counts["refused writes"] > 0
                # Look before the sweep, which would delete files that nobody accounts for.
                outcome.problems += life.leftovers(had_full_disk=was_full)
                loop.run_until_complete(_clean_up(life))
                outcome.problems += life.leftovers(had_full_disk=was_full)
                last_calls = LastCalls(callers, life, origin, choose)
                outcome.problems += loop.run_until_complete(last_calls.problems())
        except NothingLeftToRun as exc:
            outcome.problems.append(f"hangs: {exc}")
        outcome.problems += callers.unexpected + life.breaker.problems
        outcome.problems += [str(line) for line in logged if line["event"] in DEFECTS]
        outcome.counts.update({"lives": 1, "steps": loop.steps})
        outcome.counts += life.breaker.counts
        trace.update(loop.trace.encode())
        outcome.problems += _dropped_too_early(life)
        outcome.counts["clocks set"] += life.clock.wall_off_ns != wall_off_ns
        began_ns, wall_off_ns = loop.now_ns, life.clock.wall_off_ns
        life.kill()
        logged.clear()  # what a task logs while it is killed is no defect
        history.crash()
    outcome.counts.update(call.kind for call in history.calls)
    outcome.counts["left or cut off"] = sum(
        not call.is_done and not call.error for call in history.calls
    )
    outcome.counts["served stale"] = sum(call.is_stale for call in history.calls)
    outcome.counts["origin reads"] = origin.reads
    outcome.problems += map(str, judge(history, GRACE_NS))
    outcome.trace = trace.hexdigest()
    return outcome


async def _live(life: Life, callers: Callers, choose: random.Random, *, is_last: bool) -> None:
    everything = asyncio.create_task(
        callers.run(choose.randint(2, 5), choose.randint(2, 8)), name="callers"
    )
    if not is_last:
        await asyncio.wait([everything], timeout=choose.choice((0.01, 0.1, 1.0)))
        return
    await everything
    async with asyncio.timeout(QUIET_WITHIN_S):
        await life.settle()


def _dropped_too_early(life: Life) -> list[str]:
    """Return the entries that left L2 by their age before they had reached it.

    Only lives that began with a clock astray are looked at: they have to confirm such entries at
    the origin instead.
    """
    return [
        f"{key} was dropped by its age {age_ns / 1e9:.3f} s after it was stored"
        for key, age_ns in life.expired
        if life.began_astray and age_ns < KEEP_EXPIRED_NS
    ]


async def _clean_up(life: Life) -> None:
    await life.sweep_litter()
    await life.cache.upkeep.disk_step()


def summary_of(seeds: int, counts: Counter[str]) -> str:
    """Return in one line what the seeds did."""
    return f"{seeds:,} seeds: " + ", ".join(f"{counts[what]:,} {what}" for what in sorted(counts))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="this one only, in detail")
    parser.add_argument("--log", action="store_true", help="print every step of it")
    asked = parser.parse_args()
    first, count = (asked.first, asked.seeds) if asked.seed is None else (asked.seed, 1)
    counts: Counter[str] = Counter()
    failed: list[int] = []
    began_s = time.monotonic()
    for seed in range(first, first + count):
        outcome = run_seed(seed, keep_log=asked.log)
        counts += outcome.counts
        sys.stdout.writelines(outcome.log)
        if outcome.problems:
            failed.append(seed)
            print(f"seed {seed}:", *outcome.problems, sep="\n  ")  # noqa: T201
    took_s = time.monotonic() - began_s
    print(f"{summary_of(count, counts)}, in {took_s:.0f} s; {len(failed)} with violations")  # noqa: T201
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
