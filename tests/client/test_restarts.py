"""Does the client's default patience cover a restart of the daemon on a busy host?"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cachesvc_client import CacheClient, CacheServiceError, LocalOptions
from tests.conftest import NewDaemon
from tests.support.daemons import wait_until

CALLERS = 4
RESTARTS = 5


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["SIGTERM", "kill -9"])
def test_restarts_beside_busy_processes_fail_no_call(new_daemon: NewDaemon, how: str) -> None:
    daemon = new_daemon()
    with CacheClient(daemon.target, local=LocalOptions(enabled=False)) as client:
        callers = [Caller(client) for _ in range(CALLERS)]
        starts = []
        with busy_processes(2 * (os.cpu_count() or 1)):
            for _ in range(RESTARTS):
                if how == "SIGTERM":
                    daemon.stop()
                else:
                    daemon.kill()
                starts.append(daemon.start())
                for caller in callers:
                    caller.wait_for_another()
        for caller in callers:
            caller.end()
    longest_s = max(caller.longest_s for caller in callers)
    sys.stdout.write(
        f"{how}: starts of {min(starts):.1f} to {max(starts):.1f} s; "
        f"{sum(caller.answered for caller in callers)} calls, the longest {longest_s:.1f} s\n"
    )
    assert [error for caller in callers for error in caller.errors] == []


class Caller:
    """A thread that calls without a pause."""

    def __init__(self, client: CacheClient) -> None:
        self._client = client
        self._over = threading.Event()
        self.answered = 0
        self.longest_s = 0.0
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._call, daemon=True)
        self._thread.start()

    def wait_for_another(self) -> None:
        """Return once a call that begins from now on is answered, or any call has failed."""
        enough = self.answered + 2
        wait_until(lambda: self.answered >= enough or bool(self.errors), 60)

    def end(self) -> None:
        self._over.set()
        self._thread.join(60)

    def _call(self) -> None:
        while not self._over.is_set() and not self.errors:
            begun = time.monotonic()
            try:
                self._client.inspect("text", "nothing")
            except CacheServiceError as error:
                self.errors.append(str(error))
            self.answered += 1
            self.longest_s = max(self.longest_s, time.monotonic() - begun)


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
