"""Promise 1 on the real daemon: is any Get served less than what was acknowledged before it?

Clients run in processes of their own, half of them with local delivery and half with inline
answers. Writers change an object at the origin and invalidate it, or put the next version, as fast
as they are answered. The origin takes 0 to 300 ms. Every answer is 64 KB of its version, and every
word of it is checked.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cachesvc_client import CacheClient
from cachesvc_client.requests import PutOptions
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.board import Board
from tests.local.changing_store import ChangingStore, running_changing_store, words_of_version
from tests.local.conftest import NewWorker
from tests.local.steps import Spun
from tests.support import aws_environment
from tests.support.daemons import Daemon

USERS = 20
WRITERS = 4
PROCESSES = 4
CLIENTS_EACH = 16
LATENCY_S = 0.3
OWNER = "wardrobe"
# Some users change all the time, some rarely enough to be served by local hits.
WEIGHTS = (8, 4, 2, 1, 1)
FIELDS = [{"name": "words", "encoding": "pickle", "template": "{owner}/{id}"}]
SETTINGS = {
    "ORIGIN__KIND": "s3",
    "ORIGIN__BUCKET": "bucket",
    "ORIGIN__REGION": "eu-central-1",
    "KINDS__TEXT__FIELDS": json.dumps(FIELDS),
    "LIMITS__MAX_CONCURRENT_FILLS": "32",
}


@dataclass
class Writer:
    """Changes some users, one after the other; no other writer changes them."""

    client: CacheClient
    store: ChangingStore
    board: Board
    users: range
    invalidations: int = 0
    puts: int = 0
    errors: list[Exception] = field(default_factory=list)

    def run(self) -> None:
        choose = random.Random(self.users.start)
        try:
            while not self.board.is_over:
                user = choose.choices(self.users, WEIGHTS)[0]
                if choose.random() < 0.25:
                    self.put(user)
                else:
                    self.invalidate(user)
        except Exception as exc:  # noqa: BLE001 - the test raises it
            self.errors.append(exc)

    def next_version(self, user: int) -> int:
        version = self.store.versions[name_of(user)] + 1
        self.store.versions[name_of(user)] = version
        return version

    def invalidate(self, user: int) -> None:
        version = self.next_version(user)
        self.client.invalidate(key=("text", name_of(user)))
        self.board.raise_floor(user, version)
        self.invalidations += 1

    def put(self, user: int) -> None:
        version = self.next_version(user)
        options = PutOptions(owner_id=OWNER, as_of=datetime.now(UTC))
        fields = {"words": words_of_version(version)}
        self.client.put("text", name_of(user), fields, options=options)
        self.board.raise_floor(user, version)
        self.puts += 1


def name_of(user: int) -> str:
    return f"user-{user}"


class Run:
    """The daemon, its origin and its clients. `end` returns what the clients saw."""

    def __init__(self, daemon: Daemon, store: ChangingStore, board_path: Path) -> None:
        self.daemon, self.store = daemon, store
        self.board_path, self.board = board_path, Board(board_path)
        self.clients = [CacheClient(daemon.target) for _ in range(WRITERS)]
        each = USERS // WRITERS
        self.writers = [
            Writer(client, store, self.board, range(each * number, each * (number + 1)))
            for number, client in enumerate(self.clients)
        ]
        for user in range(USERS):
            store.versions[name_of(user)] = 1

    def until(
        self, new_worker: NewWorker, *, processes: int, gets: int, invalidations: int
    ) -> Spun:
        """Run until there were that many Gets and invalidations; return what the readers saw."""
        names = [name_of(user) for user in range(USERS)]
        workers = []
        for reader in range(processes):
            local = reader % 2 == 0
            workers.append(new_worker(self.daemon.target, local={"enabled": local}))
            workers[-1].begin(
                steps.spin_together,
                str(self.board_path),
                names,
                OWNER,
                reader=reader,
                clients=CLIENTS_EACH,
                target=self.daemon.target,
                local=local,
            )
        threads = [threading.Thread(target=writer.run) for writer in self.writers]
        for thread in threads:
            thread.start()
        while not self.is_enough(gets, invalidations):
            threads[0].join(0.05)
        self.board.end()
        for thread in threads:
            thread.join()
        seen = Spun()
        for worker in workers:
            seen.add(worker.result())
        return seen

    def is_enough(self, gets: int, invalidations: int) -> bool:
        if any(writer.errors for writer in self.writers):
            return True
        return self.board.gets >= gets and self.invalidations >= invalidations

    @property
    def invalidations(self) -> int:
        return sum(writer.invalidations for writer in self.writers)

    def check(self, seen: Spun) -> None:
        assert [error for writer in self.writers for error in writer.errors] == []
        assert seen.stale == []
        served = self.clients[0].stats().requests
        # Both kinds of delivery, and all three tiers, were used.
        assert served.origin_fills > 0
        assert seen.gets > served.memory_hits + served.disk_hits + served.origin_fills
        assert served.memory_hits > 0

    def close(self) -> None:
        for client in self.clients:
            client.close()


@pytest.fixture
def run(new_daemon: NewDaemon, tmp_path: Path) -> Iterator[Run]:
    with running_changing_store(LATENCY_S) as store:
        settings = {**SETTINGS, "ORIGIN__ENDPOINT_URL": store.endpoint_url}
        daemon = new_daemon(environment=aws_environment.with_key(), **settings)
        running = Run(daemon, store, tmp_path / "board")
        yield running
        running.close()


def test_no_answer_is_older_than_what_was_acknowledged_before_its_call(
    run: Run, new_worker: NewWorker
) -> None:
    seen = run.until(new_worker, processes=2, gets=2_000, invalidations=150)
    run.check(seen)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_answer_of_two_hundred_thousand_is_older_than_what_was_acknowledged_before_its_call(
    run: Run, new_worker: NewWorker
) -> None:
    began_s = time.monotonic()
    seen = run.until(new_worker, processes=PROCESSES, gets=200_000, invalidations=10_000)
    took_s = time.monotonic() - began_s
    served = run.clients[0].stats().requests
    calls = served.memory_hits + served.disk_hits + served.origin_fills
    print(  # noqa: T201 - the figures of the run
        f"{seen.gets:,} content-checked Gets of {PROCESSES * CLIENTS_EACH} clients "
        f"({seen.gets - calls:,} of them local hits, {served.origin_fills:,} answered by a fill, "
        f"{seen.absent:,} more refused), {run.invalidations:,} invalidations and "
        f"{sum(writer.puts for writer in run.writers):,} Puts in {took_s:.0f} s "
        f"({run.invalidations / took_s:.0f} invalidations/s): {len(seen.stale)} stale"
    )
    run.check(seen)
