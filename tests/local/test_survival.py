"""Promise 9 under load: do readers of mapped entries survive, and do they see nothing stale?"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.board import Board
from tests.local.conftest import NewWorker
from tests.local.steps import Spun
from tests.local.versioned import put_version
from tests.local.workers import Worker
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
READERS = 2
# One more than L1 keeps, so every other Get evicts.
KEYS = 3
MOST_IN_L1 = "2"


class Storm:
    """Changes entries while readers read what they have mapped, without a pause."""

    def __init__(self, daemon: Daemon, writer: CacheClient, board: Board) -> None:
        self._daemon = daemon
        self._writer = writer
        self._board = board
        self._version = 0
        self.ids = [fresh_id("text") for _ in range(KEYS)]

    def put(self, key: int) -> None:
        self._version += 1
        put_version(self._writer, self.ids[key], self._version)
        self._board.raise_floor(key, self._version)

    def invalidate(self, key: int, *, erase: bool = False) -> None:
        self._writer.invalidate(clothing_id=self.ids[key], erase=erase)
        self._board.raise_floor(key, self._version + 1)
        self.put(key)

    def stop_a_reader(self, key: int, reader: Worker) -> None:
        reader.send_signal(signal.SIGSTOP)
        try:
            self.invalidate(key)
        finally:
            reader.send_signal(signal.SIGCONT)

    def restart(self, key: int) -> None:
        self._daemon.restart()
        self.put(key)

    def rage(self, rounds: int, restart_every: int, readers: list[Worker]) -> None:
        choose = random.Random(7)
        for number in range(1, rounds + 1):
            key = choose.randrange(KEYS)
            if number % restart_every == 0:
                self.restart(key)
                continue
            match number % 4:
                case 0:
                    self.put(key)
                case 1:
                    self.invalidate(key)
                case 2:
                    self.invalidate(key, erase=True)
                case 3:
                    self.stop_a_reader(key, choose.choice(readers))


@pytest.mark.parametrize(
    ("rounds", "restart_every"),
    [
        pytest.param(40, 20, id="quick"),
        pytest.param(1_000, 25, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_readers_live_through_every_change_and_see_nothing_old(
    new_daemon: NewDaemon,
    new_client: NewClient,
    new_worker: NewWorker,
    tmp_path: Path,
    rounds: int,
    restart_every: int,
) -> None:
    daemon = new_daemon(KINDS__TEXT__MAX_ENTRIES=MOST_IN_L1)
    board = Board(tmp_path / "board")
    storm = Storm(daemon, new_client(daemon), board)
    for key in range(KEYS):
        storm.put(key)
    readers = [new_worker(daemon.target) for _ in range(READERS)]
    for number, reader in enumerate(readers):
        reader.begin(steps.read_on, str(tmp_path / "board"), storm.ids, reader=number)
    board.wait_for_readers(READERS)
    storm.rage(rounds, restart_every, readers)
    board.end()
    # A reader that SIGBUS killed has no result.
    seen: list[Spun] = [reader.result() for reader in readers]
    assert list(itertools.chain.from_iterable(spun.stale for spun in seen)) == []
    assert all(spun.gets > 0 for spun in seen)
