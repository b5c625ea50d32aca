"""Strikes an engine at the system calls of an operation: `python -m tests.crash.strike`.

Each operation runs once under strace, which lists its calls to files, thread by thread. Then the
operation runs again for each of these calls (or for `--sample` of all calls), and strace strikes
that call: it kills the process (`--fault kill`), fails the call (`--fault error`: once, or from
then on) or makes it take 2 s (`--fault hang`: the first call of each name, while an entry of L1 is
got again and again). The next life examines what is left. With `--power ext4` the disks lose their
power behind a failure: what was answered must be durable. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cachesvc.core.errors import CacheError, ConfigError
from cachesvc.core.leaving import Leaving
from tests.crash.ledger import Event, Ledger
from tests.crash.life import Life
from tests.crash.mortal import LifeFailed, Mortal
from tests.crash.swatches import KEYS, OWNER
from tests.support.lossy_disk import LossyDisk, lossy_disk
from tests.support.strace import Call, counted_calls, injected

KEY, OTHER, HOT = KEYS[0], KEYS[1], KEYS[5]
HANG_US = 2_000_000
MAIN = "MainThread"
CHANGES = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "mkdirat",
    "unlink", "unlinkat", "rmdir", "ftruncate", "fallocate",
)  # fmt: skip
ERRORS = {
    "openat": ("EIO", "ENOSPC", "EMFILE"),
    "pread64": ("EIO",),
    "readv": ("EIO",),
    **dict.fromkeys(CHANGES, ("EIO", "ENOSPC")),
}
Act = Callable[[Life], Awaitable[Any]]


def _threads() -> dict[str, int]:
    """Return this process's threads by name. After a fork the main one has the parent's id."""
    ids = {thread.name: thread.native_id or 0 for thread in threading.enumerate()}
    return {**ids, MAIN: os.getpid()}


async def _nothing(life: Life) -> None: ...


async def _put_two(life: Life) -> None:
    await life.put(KEY)
    await life.put(OTHER)


async def _put_and_forget(life: Life) -> None:
    """Put the key into L2, and make L1 forget it."""
    await life.put(KEY)
    life.house.memory.remove(KEY, Leaving.BYTES_LIMIT)


async def _leave_litter(life: Life) -> None:
    await life.put(KEY)
    (file, *_) = life.house.files()
    file.with_name("1.safetensors").write_bytes(b"litter")


# For each operation, its preparation and the struck act. `start` is struck before the others.
OPERATIONS: dict[str, tuple[Act, Act]] = {
    "start": (_nothing, _nothing),
    "put": (lambda life: life.put(KEY), lambda life: life.put(KEY)),
    "first put": (lambda life: life.invalidate(KEY), lambda life: life.put(KEY)),
    "invalidate": (lambda life: life.put(KEY), lambda life: life.invalidate(KEY)),
    "erase": (_put_two, lambda life: life.erase(KEY)),
    "evict": (_put_two, lambda life: life.evict(KEY)),
    "refill": (lambda life: life.put(KEY), lambda life: life.refill(KEY)),
    "promote": (_put_and_forget, lambda life: life.get(KEY)),
    "sweep": (_leave_litter, lambda life: life.sweep()),
}


class Strike(NamedTuple):
    """The struck call of an operation, and the fault."""

    operation: str
    call: Call
    fault: str
    when: str


@dataclass
class Strikes:
    """Lives over one pair of directories, each struck once."""

    folder: Path
    runtime: Path
    disks: list[LossyDisk] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    counts: Counter[str] = field(default_factory=Counter)
    hits: list[int] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    _may_lose_catalog: bool = False

    # ---- the list of calls

    def plan(self, operation: str, fault: str) -> Iterator[Strike]:
        until = "ended" if operation == "start" else "acted"
        for (thread, name), count in sorted(self._count(operation, until).items()):
            for number in range(1, count + 1):
                call = Call(thread, name, number)
                if fault == "kill":
                    yield Strike(operation, call, "signal=SIGKILL", str(number))
                elif fault == "hang":
                    if thread != MAIN and name in ERRORS and number == 1:
                        yield Strike(operation, call, f"delay_enter={HANG_US}", "1")
                # A write of the main thread at the start goes to the pipe, not to a file.
                elif thread != MAIN or (operation == "start" and name != "write"):
                    for error in ERRORS.get(name, ()):
                        yield Strike(operation, call, f"error={error}", str(number))
                        yield Strike(operation, call, f"error={error}", f"{number}+")

    def examine(self) -> None:
        """Start once more, without a fault."""
        self._count("start", "ended")

    def _count(self, operation: str, until: str) -> Counter[tuple[str, str]]:
        with (
            self._at_the_start_of(operation) as (mortal, threads, go),
            counted_calls(threads, self.runtime / "calls") as found,
        ):
            go()
            self._await(until, mortal)
            mortal.kill()
        return found

    # ---- one strike

    def strike(self, strike: Strike) -> None:
        # An error that stays is damage; an error that passes is not.
        self._may_lose_catalog = strike.when.endswith("+")
        with self._at_the_start_of(strike.operation) as (mortal, threads, go):
            tid = threads[strike.call.thread]
            with injected(tid, strike.call.name, strike.fault, strike.when):
                go()
                ended = self._await("ended", mortal)
                for disk in self.disks:
                    disk.cut_power()
                mortal.kill()
        for disk in self.disks:
            disk.take_away()
            disk.switch_on()
        self.counts["survived" if ended else "killed"] += 1
        self.counts[f"{strike.operation}: {strike.fault.partition('=')[0]}"] += 1

    @contextlib.contextmanager
    def _at_the_start_of(
        self, operation: str
    ) -> Iterator[tuple[Mortal, dict[str, int], Callable[[], object]]]:
        """Yield a process that waits before an operation, its threads, and the means to let it go
        on.
        """
        reading, writing = os.pipe()
        told = self.runtime / "threads"

        def live(tell: Callable[[Event], None]) -> None:
            def wait() -> None:
                told.write_text(json.dumps(_threads()))
                tell(Event("ready"))
                os.read(reading, 1)

            asyncio.run(self._live(operation, tell, wait))

        mortal = Mortal(live, self.ledger)
        try:
            assert self._await("ready", mortal), f"{operation}: the process died before"
            yield mortal, json.loads(told.read_text()), lambda: os.write(writing, b"!")
        finally:
            os.close(reading)
            os.close(writing)

    def _await(self, what: str, mortal: Mortal) -> bool:
        """Return whether the process told `what` before it died."""
        for event in mortal.told():
            if event.what == "hits":
                self.hits.append(event.wall_ns)
                self.lags_s.append(event.at_s)
            if event.what == what:
                return True
        return False

    async def _live(
        self, operation: str, tell: Callable[[Event], None], wait: Callable[[], None]
    ) -> None:
        life = Life(self.folder, self.runtime, self.ledger, tell, random.Random(1))
        life.house.disk_threads = life.house.worker_threads = 1
        life.may_lose_catalog = self._may_lose_catalog
        prepare, act = OPERATIONS[operation]
        if operation == "start":
            wait()
            await _start(life, tell)
        else:
            life.open()
            await life.examine()
            await life.put(HOT)
            await prepare(life)
            await life.house.settle()
            wait()
            await _struck(life, act, tell)
        tell(Event("ended"))
        await asyncio.get_running_loop().create_future()  # until it is killed


async def _start(life: Life, tell: Callable[[Event], None]) -> None:
    """Open and examine the engine. On a failing disk it may refuse to start."""
    try:
        life.open()
        await life.examine()
    except (ConfigError, CacheError, OSError, sqlite3.Error):
        tell(Event("failed"))


async def _struck(life: Life, act: Act, tell: Callable[[Event], None]) -> None:
    """Do the operation, and check that cached entries are served meanwhile."""
    begun_s = time.monotonic()
    acting = asyncio.ensure_future(_to_the_end(life, act))
    hits, worst_lag_s = await _hit_until(acting, life)
    try:
        await acting
    except (CacheError, OSError):
        tell(Event("failed"))
    if time.monotonic() - begun_s > HANG_US / 2e6:  # else the struck call was not made
        tell(Event("hits", wall_ns=hits, at_s=worst_lag_s))
    tell(Event("acted"))
    life.check_catalog()
    for key in KEYS:
        with contextlib.suppress(CacheError):
            await life.get(key)
    await life.house.settle()


async def _to_the_end(life: Life, act: Act) -> None:
    """Do the operation, and wait for the work behind its answer."""
    try:
        await act(life)
    finally:
        await life.house.settle()


async def _hit_until(done: asyncio.Future[Any], life: Life) -> tuple[int, float]:
    """Get an entry of L1 again and again; return the number of Gets and the loop's longest turn."""
    hits, worst_lag_s, turned_s = 0, 0.0, time.monotonic()
    while not done.done():
        assert (await life.house.get(HOT, owner=OWNER)).tier == "memory"
        hits += 1
        await asyncio.sleep(0)
        now_s = time.monotonic()
        worst_lag_s, turned_s = max(worst_lag_s, now_s - turned_s), now_s
    return hits, worst_lag_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=("kill", "error", "hang"), default="kill")
    parser.add_argument("--operations", nargs="*", default=list(OPERATIONS))
    parser.add_argument("--sample", type=int, help="so many of all strikes, at random")
    parser.add_argument("--calls", nargs="*", help="only these, and each once")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--power", choices=("ext4", "xfs"))
    parser.add_argument("--folder", type=Path, required=True)
    asked = parser.parse_args()
    failure, strike = "", None
    planned: list[Strike] = []
    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm")
        )
        strikes = Strikes(asked.folder, Path(runtime))
        if asked.power:
            for name in ("l2", "state"):
                disk = stack.enter_context(lossy_disk(asked.power, asked.folder / name))
                strikes.disks.append(disk)
        try:
            strikes.examine()  # the first start makes files that later starts find
            for operation in asked.operations:
                planned += strikes.plan(operation, asked.fault)
            if asked.calls:
                planned = [s for s in planned if s.call.name in asked.calls and "+" not in s.when]
            if asked.sample is not None:
                chosen = min(asked.sample, len(planned))
                planned = random.Random(asked.seed).sample(planned, chosen)
            for strike in planned:
                strikes.strike(strike)
            # The state after the last strike is examined too.
            strikes.examine()
        except LifeFailed as exc:
            last = "".join(event.line().decode() for event in strikes.ledger.last)
            failure = f"at or before {strike}: {exc}\n{last}"
    report: dict[str, Any] = {"planned": len(planned), "counts": dict(strikes.counts)}
    if asked.fault == "hang":
        report["hung"] = len(strikes.hits)
        report["least_hits"] = min(strikes.hits, default=0)
        report["lag_ms"] = {
            "median": round(1000 * statistics.median(strikes.lags_s or [0.0]), 1),
            "worst": round(1000 * max(strikes.lags_s, default=0.0), 1),
        }
    report["failure"] = failure
    json.dump(report, sys.stdout)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
