"""Does the client's default patience cover restarts of the daemon? Promise 9."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cachesvc_client import AsyncCacheClient, CacheClient, CacheServiceError, LocalOptions
from tests.client.support import values
from tests.conftest import NewDaemon
from tests.support.daemons import wait_until

USER = "u1"
INLINE = LocalOptions(enabled=False)
# What systemd waits before it starts a killed daemon again: RestartSec in deploy/systemd.
RESTART_S = 2.0
LASTS_AT_MOST_S = 120.0


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("busy", [False, True], ids=["calm", "beside busy processes"])
@pytest.mark.parametrize("how", ["SIGTERM", "kill -9"])
def test_restarts_fail_no_call(new_daemon: NewDaemon, how: str, busy: bool) -> None:
    """Eight callers without a pause: threads and tasks, with shared files and inline, two of each.

    All have default settings. After a kill the daemon may have lost changes, so it refuses a Put
    that was under way (PUT_OUTDATED: read the source again): an answer, which is counted apart.
    """
    restarts = 5 if busy else 20
    daemon = new_daemon(is_forked=False)
    with CacheClient(daemon.target) as client:
        client.put_human(USER, **values.human())
    board = Board(may_refuse_puts=how == "kill -9")
    starts = []
    with (
        busy_processes(2 * (os.cpu_count() or 1) if busy else 0),
        callers(daemon.target, board),
    ):
        board.wait_for_another()
        for _ in range(restarts):
            if how == "SIGTERM":
                daemon.stop()
            else:
                daemon.kill()
                time.sleep(RESTART_S)
            starts.append(daemon.start())
            board.wait_for_another()
    sys.stdout.write(
        f"{restarts} restarts by {how}{' beside busy processes' if busy else ''}: starts of "
        f"{min(starts):.1f} to {max(starts):.1f} s; {board.text()}\n"
    )
    assert board.errors == []


class Board:
    """Counts the calls of all callers, by the caller's name."""

    def __init__(self, *, may_refuse_puts: bool) -> None:
        self._may_refuse_puts = may_refuse_puts
        self._refused_puts = 0
        self.answered: dict[str, int] = {}
        self.errors: list[str] = []
        self._longest_s = 0.0
        self.is_over = threading.Event()

    def join(self, name: str) -> None:
        self.answered[name] = 0

    def count(self, name: str, begun: float, error: CacheServiceError | None) -> None:
        self.answered[name] += 1
        self._longest_s = max(self._longest_s, time.monotonic() - begun)
        if error is not None and self._may_refuse_puts and error.reason == "PUT_OUTDATED":
            self._refused_puts += 1
        elif error is not None:
            self.errors.append(f"{name}: {error}")

    def wait_for_another(self) -> None:
        """Return once each caller was answered a call that began after this."""
        enough = {name: calls + 2 for name, calls in self.answered.items()}
        wait_until(
            lambda: all(self.answered[name] >= calls for name, calls in enough.items()),
            LASTS_AT_MOST_S,
            lambda: f"{self.answered} of {enough}; {self.errors[:3]}",
        )

    def text(self) -> str:
        each = ", ".join(f"{name} {calls:,}" for name, calls in self.answered.items())
        total = sum(self.answered.values())
        return (
            f"{total:,} calls, {len(self.errors)} failed, {self._refused_puts} Puts PUT_OUTDATED, "
            f"the longest call {self._longest_s:.1f} s: {each}"
        )


@contextmanager
def callers(target: str, board: Board) -> Iterator[None]:
    """Call from two threads and two tasks with shared files, and as many inline."""
    threads = []
    for local, name in ((LocalOptions(), "shared"), (INLINE, "inline")):
        client = CacheClient(target, local=local)
        threads += [_begin(f"thread {name} {number}", board, client) for number in (1, 2)]
    threads.append(_begin_tasks(target, board))
    try:
        yield
    finally:
        board.is_over.set()
        for thread in threads:
            thread.join(LASTS_AT_MOST_S)
            assert not thread.is_alive()


def _begin(name: str, board: Board, client: CacheClient) -> threading.Thread:
    def run() -> None:
        for step in itertools.cycle(_steps(client, name)):
            if board.is_over.is_set():
                return
            begun, error = time.monotonic(), None
            try:
                step()
            except CacheServiceError as exc:
                error = exc
            board.count(name, begun, error)

    board.join(name)
    thread = threading.Thread(target=run, name=name)
    thread.start()
    return thread


def _begin_tasks(target: str, board: Board) -> threading.Thread:
    names = [f"task {local} {number}" for local in ("shared", "inline") for number in (1, 2)]
    for name in names:
        board.join(name)

    async def call(name: str, client: AsyncCacheClient) -> None:
        for step in itertools.cycle(_steps(client, name)):
            if board.is_over.is_set():
                return
            begun, error = time.monotonic(), None
            try:
                await step()
            except CacheServiceError as exc:
                error = exc
            board.count(name, begun, error)
            await asyncio.sleep(0)  # a local hit does not yield to the other tasks

    async def run() -> None:
        async with (
            AsyncCacheClient(target) as shared,
            AsyncCacheClient(target, local=INLINE) as inline,
        ):
            await asyncio.gather(*(call(n, shared if "shared" in n else inline) for n in names))

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="tasks")
    thread.start()
    return thread


def _steps(client: Any, name: str) -> list[Callable[[], Coroutine[Any, Any, Any]]]:
    """Return a caller's calls: mostly Gets, one of them streamed, a look and a Put."""
    gets = [lambda: client.get_human(USER)] * 20
    return [
        *gets,
        lambda: client.get("human_upper_body", USER),
        lambda: client.inspect("human_upper_body", USER),
        *gets,
        # A person of its own: a Put loses to another caller's later Put of the same.
        lambda: client.put_human(name.replace(" ", "-"), **_PERSON),
    ]


_PERSON = values.human()


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Run `number` processes that only compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
