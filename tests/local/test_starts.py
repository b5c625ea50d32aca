"""Do workers work however they began, and end when they are told to? Promise 9.

Forks before and after the first call, of forks and among busy threads, and spawn; each while
the daemon dies and a new one takes its place. Nothing may hang or crash.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cachesvc_client import CacheClient
from tests.conftest import NewDaemon
from tests.local.versioned import put_version
from tests.support.daemons import ROOT, Daemon, wait_until
from tests.support.sample_objects import fresh_id

WAYS = [
    "fork before the first call",
    "fork among busy threads",
    "spawn",
    # Much like the others, and each starts a daemon twice.
    pytest.param("fork after the first call", marks=pytest.mark.slow),
    pytest.param("fork of a fork", marks=pytest.mark.slow),
]
# A hang's end, on a machine that is busy with other tests.
ENDS_WITHIN_S = 30


@contextmanager
def started(daemon: Daemon, way: str, text: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.local.starts", way, daemon.target, text],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_versions(process: subprocess.Popen[bytes], count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


@pytest.mark.parametrize("way", WAYS)
def test_worker_and_child_live_through_a_new_daemon(way: str, new_daemon: NewDaemon) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    with CacheClient(daemon.target) as client:
        put_version(client, text, 1)
        with started(daemon, way, text) as process:
            assert read_versions(process, 2) == [1, 1]
            daemon.restart()
            put_version(client, text, 2)
            out, _ = process.communicate(b"\n", timeout=ENDS_WITHIN_S)
            assert [int(line) for line in out.split()] == [2, 2]
            assert process.returncode == 0


def test_sigterm_ends_a_worker_with_its_child_waiting_and_lets_go_of_what_it_held(
    new_daemon: NewDaemon,
) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    with CacheClient(daemon.target) as client:
        put_version(client, text, 1)
        with started(daemon, "fork after the first call", text) as process:
            assert read_versions(process, 2) == [1, 1]
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=ENDS_WITHIN_S)  # to the end of who holds its output
            assert process.returncode == -signal.SIGTERM
        client.invalidate(clothing_id=text)
        wait_until(lambda: client.stats().held_bytes == 0, ENDS_WITHIN_S)
