"""Does a client over TCP leave a connection whose peer is gone without a FIN or a RST?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cachesvc.edge.grpc import server
from cachesvc_client._options import (
    CHANNEL_OPTIONS,
    KEEPALIVE_OPTIONS,
    KEEPALIVE_TIME_S,
    KEEPALIVE_TIMEOUT_S,
)
from cachesvc_client._route import Route
from tests.support import mounts
from tests.support.daemons import ROOT

SCRIPT = Path(__file__).with_name("support") / "dead_connection.py"
IN_A_NETWORK = 'ip link set lo up && exec "$@"'


def cut_off(folder: Path, kind: str, time_s: float, timeout_s: float, gives_up_s: float) -> Any:
    """Return what `dead_connection.py` reports with these times."""
    mounts.need("unshare", "ip", "nft")
    times = (str(int(time_s * 1000)), str(int(timeout_s * 1000)), str(gives_up_s))
    command = (sys.executable, str(SCRIPT), str(folder), kind, *times)
    ran = subprocess.run(
        ["unshare", "--net", "sh", "-c", IN_A_NETWORK, "sh", *command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
        timeout=4 * gives_up_s + 30,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_a_dead_connection_is_left_for_one_that_works(tmp_path: Path, kind: str) -> None:
    seen = cut_off(tmp_path, kind, time_s=2, timeout_s=1, gives_up_s=15)
    assert seen["served"], seen
    assert set(seen["failures"]) <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["sync", "aio"])
def test_with_the_times_that_are_shipped_too(tmp_path: Path, kind: str) -> None:
    bound_s = KEEPALIVE_TIME_S + KEEPALIVE_TIMEOUT_S
    seen = cut_off(tmp_path, kind, KEEPALIVE_TIME_S, KEEPALIVE_TIMEOUT_S, gives_up_s=bound_s + 20)
    sys.stdout.write(f"{kind}: {seen}\n")
    assert seen["served"], seen


def test_the_daemon_takes_the_pings_of_its_clients() -> None:
    """If the pings came more often than the daemon allows, it would end the connection."""
    allowed = dict(server._OPTIONS)
    pings = dict(KEEPALIVE_OPTIONS)
    assert pings["grpc.keepalive_time_ms"] > allowed["grpc.http2.min_ping_interval_without_data_ms"]
    assert allowed["grpc.keepalive_permit_without_calls"] == 1


def test_a_unix_socket_needs_no_pings() -> None:
    assert Route("unix:/run/cachesvc.sock").options == CHANNEL_OPTIONS
    assert set(Route("gpu1.example:8443").options) == {*CHANNEL_OPTIONS, *KEEPALIVE_OPTIONS}
