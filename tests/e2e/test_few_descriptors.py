"""Does a daemon with few descriptors answer every caller, however many small entries it stores?

Promise 5. At a hard limit of 256, L1 evicts before connections, probes and metrics run short.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support import sample_objects
from tests.support.daemons import Daemon, stub_on
from tests.support.grpc_calls import TIMEOUT_S, put
from tests.support.sample_objects import fresh_id

LIMIT = 256
ENTRIES = 300
CONNECTIONS = 20


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    under = ("prlimit", f"--nofile={LIMIT}:{LIMIT}")
    daemon = Daemon(tmp_path, {"KINDS__HUMAN__MAX_ENTRIES": "10000"}, under=under)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.close()


def test_a_daemon_of_few_descriptors_evicts_before_it_has_none(daemon: Daemon) -> None:
    blob = sample_objects.person(fresh_id("u")).blob()
    stub = daemon.stub()
    for _ in range(ENTRIES):
        put(stub, "human_upper_body", fresh_id("u"), blob)
    for _ in range(CONNECTIONS):
        stats = stub_on(daemon.channel()).Stats(pb.StatsRequest(), timeout=TIMEOUT_S)
    assert 0 < stats.memory.entries <= LIMIT // 2
    assert daemon.http("/readyz")[0] == 200
    readings = daemon.metrics()
    assert readings['cachesvc_memory_removals_total{reason="descriptors"}'] >= ENTRIES - LIMIT
    assert readings["cachesvc_process_open_fds"] < LIMIT


def test_too_few_descriptors_are_a_configuration_error(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, under=("prlimit", "--nofile=128:128"))
    try:
        assert daemon.start_in_vain() == 2
        assert "LimitNOFILE" in daemon.log_text()
        assert "Traceback" not in daemon.log_text()
    finally:
        daemon.close()
