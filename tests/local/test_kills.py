"""Promise 9, many times over: what do mapped workers see when the daemon is killed and returns?

tests/local/test_daemon_ends.py has one kill in each of the daemon's phases.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.steps import Ended
from tests.local.versioned import put_version
from tests.local.workers import Worker
from tests.support.daemons import Daemon, wait_until
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
WORKERS = 4
KILLS = 100
# The age of the oldest heartbeat that a worker still trusts.
TRUSTED_S = 1.0
# Counted from /readyz on. The run prints what it really takes; the rest allows for a busy machine.
SERVED_AGAIN_WITHIN_S = 2.0
READY_WITHIN_S = 20.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory in memory, for a socket with a fixed place and for runtime directories."""
    path = Path(tempfile.mkdtemp(prefix="cachesvc-test-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


@dataclass
class Kills:
    """What all workers saw over all kills, in seconds."""

    hits: int = 0
    last_hits_s: list[float] = field(default_factory=list)
    served_again_s: list[float] = field(default_factory=list)

    def add(self, ended: list[Ended], killed_s: float) -> None:
        for worker in ended:
            assert worker.error == "CacheUnavailable"
            self.hits += worker.served
            self.last_hits_s.append(worker.last_started_s - killed_s)

    def __str__(self) -> str:
        again = sorted(self.served_again_s)
        return (
            f"{self.hits:,} Gets; the last local hit at most {max(self.last_hits_s):.3f} s after "
            f"a kill; served again after its return: median {statistics.median(again):.3f} s, "
            f"at most {again[-1]:.3f} s"
        )


def kill_under(daemon: Daemon, workers: list[Worker], texts: list[str], flags: Path) -> float:
    """Kill the daemon while every worker hits; return when that was."""
    for number, (worker, text) in enumerate(zip(workers, texts, strict=True)):
        (flags / str(number)).unlink(missing_ok=True)
        worker.begin(steps.get_until_it_fails, text, str(flags / str(number)))
    wait_until(lambda: all((flags / str(n)).exists() for n in range(len(workers))), READY_WITHIN_S)
    daemon.kill()
    return time.monotonic()


def come_back(daemon: Daemon, workers: list[Worker], texts: list[str]) -> list[float]:
    """Start the daemon while workers ask without a pause; return how long each then waited."""
    for worker, text in zip(workers, texts, strict=True):
        worker.begin(steps.get_until_served, text)
    daemon.start()
    returned_s = time.monotonic()
    return [max(0.0, worker.result() - returned_s) for worker in workers]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_workers_live_through_a_hundred_kills_with_what_they_hold(
    new_daemon: NewDaemon,
    new_client: NewClient,
    new_worker: NewWorker,
    directory: Path,
    tmp_path: Path,
) -> None:
    daemon = new_daemon(GRPC__SOCKET=str(directory / "sock"))
    target = f"unix:{directory / 'sock'}"
    texts = [fresh_id("text") for _ in range(WORKERS)]
    with CacheClient(target) as client:
        for version, text in enumerate(texts, 1):
            put_version(client, text, version)
    workers = [new_worker(target, wait_s=0) for _ in texts]
    for worker, text in zip(workers, texts, strict=True):
        worker.do(steps.get, "held", text)
        assert worker.do(steps.is_mapped, "held")
    before = [worker.do(steps.digest, "held") for worker in workers]
    seen = Kills()
    for kill in range(1, KILLS + 1):
        killed_s = kill_under(daemon, workers, texts, tmp_path)
        seen.add([worker.result() for worker in workers], killed_s)
        if kill == KILLS // 2:
            daemon.settings["RUNTIME_DIR"] = str(directory / "fresh")
        seen.served_again_s += come_back(daemon, workers, texts)
        # A worker that SIGBUS killed cannot answer this.
        assert [worker.do(steps.digest, "held") for worker in workers] == before
        served = [
            worker.do(steps.get_and_drop, text) for worker, text in zip(workers, texts, strict=True)
        ]
        assert served == list(range(1, WORKERS + 1))
    print(f"{KILLS} kills -9 under {WORKERS} mapped workers, 0 died: {seen}")  # noqa: T201
    assert max(seen.last_hits_s) <= TRUSTED_S
    assert max(seen.served_again_s) <= SERVED_AGAIN_WITHIN_S
    wait_until(
        lambda: all(
            worker.do(steps.try_get, text) == "served"
            and worker.do(steps.transport) == "shared_file"
            for worker, text in zip(workers, texts, strict=True)
        ),
        READY_WITHIN_S,
    )
    assert (directory / "fresh" / "control").exists()
