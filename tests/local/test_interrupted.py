"""Do exceptions of signals' handlers, at any moment, leak descriptors or locks? Promise 9."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cachesvc_client import CacheClient
from tests.client.support import values
from tests.support.daemons import ROOT, Daemon

# Calls of a local hit, a try-on, a Get that opens a file and drops another, an inline Get, a
# stream, a Put, and of a client that connects, attaches and closes.
QUICK = {"hits": 3000, "tryons": 1000, "opens": 300, "inline": 400, "puts": 60, "clients": 60}
LONG = {"hits": 50_000, "opens": 5000, "inline": 10_000, "streams": 3000, "clients": 1000}


@pytest.fixture(scope="module")
def prepared(daemon: Daemon) -> Daemon:
    with CacheClient(daemon.target) as client:
        for user in ("u1", "u2"):
            client.put_human(user, **values.human())
        client.put_garment("c1", owner_id="u1", **values.garment())
        client.put_text("c1", owner_id="u1", **values.text())
    return daemon


@pytest.mark.parametrize(("what", "rounds"), QUICK.items())
def test_interrupted_calls_leak_no_descriptor_and_no_lock(
    prepared: Daemon, what: str, rounds: int
) -> None:
    interrupt(prepared, what, rounds)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("what", "rounds"), LONG.items())
def test_many_interrupted_calls_leak_no_descriptor_and_no_lock(
    prepared: Daemon, what: str, rounds: int
) -> None:
    interrupt(prepared, what, rounds)


def interrupt(daemon: Daemon, what: str, rounds: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.local.interrupted", daemon.target, what, str(rounds), "1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    interrupted, leaked, more = ended.stdout.split(maxsplit=2)
    sys.stdout.write(f"{what}: {interrupted} of {rounds} interrupted, {leaked} leaked\n")
    assert int(interrupted) > rounds // 10
    assert (leaked, more) == ("0", "[]\n")
