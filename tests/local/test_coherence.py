"""Promise 1 for local hits: is a Get ever served less than what was acknowledged before it?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.board import Board
from tests.local.conftest import NewWorker
from tests.local.steps import Spun
from tests.local.versioned import put_version, upload_version
from tests.local.workers import Worker
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

KEYS = 3
OWNER = "owner"
SMALL_BYTES = 5 * 4096
# With so many random choices, each of KEYS is chosen.
GETS_WITHOUT_A_LOOK = 100
NewClient = Callable[..., CacheClient]


class Run:
    """One writer, in this process, against readers in processes of their own."""

    def __init__(
        self, daemon: Daemon, writer: CacheClient, board_path: Path, keys: int = KEYS
    ) -> None:
        self.daemon = daemon
        self.board_path = board_path
        self.board = Board(board_path)
        self.ids = [fresh_id("text") for _ in range(keys)]
        self.writer = writer
        self.version = 0
        self.invalidations = 0

    def put(self, key: int) -> None:
        """Put the next version of a key; after the acknowledgement no Get may be older."""
        self.version += 1
        put_version(self.writer, self.ids[key], self.version)
        self.board.raise_floor(key, self.version)

    def invalidate(self, key: int) -> None:
        """Invalidate; after the acknowledgement no Get may return a version put so far."""
        self.writer.invalidate(key=("text", self.ids[key]))
        self.board.raise_floor(key, self.version + 1)
        self.invalidations += 1

    def change_at_origin(self, key: int) -> None:
        """Upload the next version and invalidate; after the acknowledgement no Get may be older."""
        self.version += 1
        upload_version(
            self.daemon.origin_dir, OWNER, self.ids[key], self.version, size_bytes=SMALL_BYTES
        )
        self.writer.invalidate(clothing_id=self.ids[key])
        self.board.raise_floor(key, self.version)
        self.invalidations += 1

    def start(self, workers: list[Worker]) -> None:
        for key in range(len(self.ids)):
            self.put(key)
        self.start_readers(workers)

    def start_from_origin(self, workers: list[Worker]) -> None:
        for key in range(len(self.ids)):
            self.change_at_origin(key)
        self.start_readers(workers, owner_id=OWNER)

    def start_readers(self, workers: list[Worker], owner_id: str = "") -> None:
        for reader, worker in enumerate(workers):
            worker.begin(
                steps.spin, str(self.board_path), self.ids, reader=reader, owner_id=owner_id
            )
        self.board.wait_for_readers(len(workers))

    def end(self, workers: list[Worker]) -> Spun:
        """End the readers and return what they saw together."""
        self.board.end()
        seen = [worker.result() for worker in workers]
        return Spun(
            sum(spun.gets for spun in seen),
            sum(spun.absent for spun in seen),
            [stale for spun in seen for stale in spun.stale],
        )

    def served_by_calls(self) -> int:
        """The number of Gets that the daemon answered with an entry."""
        requests = self.writer.stats().requests
        return requests.memory_hits + requests.disk_hits + requests.origin_fills


@pytest.fixture
def run(new_daemon: NewDaemon, new_client: NewClient, tmp_path: Path) -> Run:
    daemon = new_daemon()
    return Run(daemon, new_client(daemon), tmp_path / "board")


def test_no_local_hit_is_older_than_what_was_acknowledged_before_it(
    run: Run, new_worker: NewWorker
) -> None:
    workers = [new_worker(run.daemon.target) for _ in range(2)]
    run.start(workers)
    ends_s = time.monotonic() + 4.0
    for key in itertools.cycle(range(KEYS)):
        run.invalidate(key)
        run.put(key)
        run.put(key)
        if time.monotonic() > ends_s:
            break
    seen = run.end(workers)
    assert seen.stale == []
    assert run.invalidations > 0
    local_hits = seen.gets - run.served_by_calls()
    assert local_hits > seen.gets / 2
    workers[0].close()
    workers[1].close()
    assert 0 < run.writer.stats().requests.local_hits <= seen.gets


def test_the_same_check_finds_a_reader_that_does_not_look_at_the_link_count(
    run: Run, new_worker: NewWorker
) -> None:
    workers = [new_worker(run.daemon.target)]
    workers[0].do(steps.forget_the_link_count)
    run.start(workers)
    for key in range(KEYS):
        for _ in range(10):
            run.invalidate(key)
            run.put(key)
    run.board.wait_for_gets(GETS_WITHOUT_A_LOOK)
    seen = run.end(workers)
    assert seen.stale


@pytest.mark.parametrize(
    ("readers", "keys", "seconds"),
    [
        pytest.param(2, 20, 2.0, id="quick"),
        pytest.param(4, 200, 30.0, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
def test_no_local_hit_is_older_than_the_origin_at_the_last_acknowledged_change(
    new_daemon: NewDaemon,
    new_client: NewClient,
    new_worker: NewWorker,
    tmp_path: Path,
    readers: int,
    keys: int,
    seconds: float,
) -> None:
    daemon = new_daemon(KINDS__TEXT__MAX_ENTRIES=str(keys))
    run = Run(daemon, new_client(daemon), tmp_path / "board", keys)
    workers = [new_worker(daemon.target) for _ in range(readers)]
    run.start_from_origin(workers)
    before = run.invalidations
    ends_s = time.monotonic() + seconds
    for key in itertools.cycle(range(keys)):
        run.change_at_origin(key)
        if time.monotonic() > ends_s:
            break
    seen = run.end(workers)  # raises if a reader has died
    local_hits = seen.gets - run.served_by_calls()
    print(  # noqa: T201 - the figures of the run
        f"{readers} workers, {keys} keys, {seconds:g} s: {local_hits:,} content-checked local hits "
        f"of {seen.gets:,} Gets against {run.invalidations - before:,} changes of the origin, each "
        f"with its invalidation: {len(seen.stale)} stale, 0 crashes"
    )
    assert seen.stale == []
    assert run.invalidations > before
    assert local_hits > seen.gets / 2
    assert [worker.close() for worker in workers] == [0] * readers


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_local_hits_against_three_thousand_invalidations_are_never_stale(
    run: Run, new_worker: NewWorker
) -> None:
    workers = [new_worker(run.daemon.target) for _ in range(3)]
    run.start(workers)
    began_s = time.monotonic()
    for key in itertools.cycle(range(KEYS)):
        run.invalidate(key)
        run.put(key)
        # Only a few of the Gets were calls.
        if run.invalidations >= 3_000 and run.board.gets >= 1_100_000:
            break
    seen = run.end(workers)
    local_hits = seen.gets - run.served_by_calls()
    print(  # noqa: T201 - the figures of the run
        f"{local_hits:,} content-checked local hits of {seen.gets:,} Gets against "
        f"{run.invalidations:,} invalidations in {time.monotonic() - began_s:.0f} s: "
        f"{len(seen.stale)} stale"
    )
    assert seen.stale == []
    assert run.invalidations >= 3_000
    assert local_hits >= 1_000_000
