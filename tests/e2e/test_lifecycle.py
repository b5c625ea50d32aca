"""How does a daemon start and end, and how does it report its state?"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, wait_until
from tests.support.grpc_calls import TIMEOUT_S, get_human, refused
from tests.support.large_catalogs import most_cpu_s, multiply_row
from tests.support.sample_objects import REAL, fresh_id

SERVICE = "cachesvc.v1.CacheService"
ROWS = 100_000
SWEPT_WITHIN_S = 20.0
# Deleting that many files takes many times as long as the edges take to start.
LITTER = 3_000


def test_a_second_daemon_on_the_same_l2_root_exits_with_2(daemon: Daemon, tmp_path: Path) -> None:
    """Promise 10."""
    with not_started(tmp_path, L2__ROOT=str(daemon.l2_root)) as second:
        assert second.start_in_vain() == 2
        assert str(daemon.l2_root) in second.log_text()
        assert "Traceback" not in second.log_text()
    assert daemon.http("/readyz")[0] == 200


def test_a_second_daemon_on_the_same_runtime_directory_exits_with_2(
    daemon: Daemon, tmp_path: Path
) -> None:
    """Promise 10."""
    with not_started(tmp_path, RUNTIME_DIR=str(daemon.runtime_dir)) as second:
        assert second.start_in_vain() == 2
        assert str(daemon.runtime_dir) in second.log_text()
        assert "Traceback" not in second.log_text()
    assert daemon.stub().Stats(pb.StatsRequest(), timeout=TIMEOUT_S).version


@contextlib.contextmanager
def not_started(folder: Path, **settings: str) -> Iterator[Daemon]:
    second = Daemon(folder, settings)
    try:
        yield second
    finally:
        second.close()


def test_wrong_settings_are_all_named_at_once_and_exit_with_2(tmp_path: Path) -> None:
    with not_started(tmp_path, L1__MAX_BYTES="much", GRPC__LISTEN="nowhere") as wrong:
        assert wrong.start_in_vain() == 2
        log = wrong.log_text()
    assert "CACHESVC_L1__MAX_BYTES" in log
    assert "CACHESVC_GRPC__LISTEN" in log
    assert "Traceback" not in log


def test_settings_that_do_not_fit_together_are_all_named_at_once(tmp_path: Path) -> None:
    with not_started(tmp_path, ORIGIN__KIND="s3", GRPC__LISTEN="0.0.0.0:1") as wrong:
        assert wrong.start_in_vain() == 2
        log = wrong.log_text()
    assert "CACHESVC_ORIGIN__BUCKET" in log
    assert "CACHESVC_GRPC__LISTEN" in log
    assert "Traceback" not in log


def test_a_socket_that_a_killed_daemon_left_is_no_obstacle(new_daemon: NewDaemon) -> None:
    """Promise 9."""
    daemon = new_daemon(is_forked=False)
    daemon.kill()
    assert daemon.socket.is_socket()
    daemon.start()
    assert daemon.stub().Stats(pb.StatsRequest(), timeout=TIMEOUT_S).version


def test_a_kill_leaves_no_litter_after_the_next_start(new_daemon: NewDaemon) -> None:
    """Promise 9."""
    daemon = new_daemon(is_forked=False)
    users = [fresh_id("u") for _ in range(6)]
    for user in users:
        sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user, sizes=REAL))
    stub = daemon.stub()
    for call in [
        stub.GetHuman.future(
            pb.GetHumanRequest(user_id=user, category=pb.HUMAN_CATEGORY_UPPER_BODY),
            timeout=TIMEOUT_S,
        )
        for user in users
    ]:
        assert call.result().entry.tensors
    daemon.kill()  # while the commits behind the answers are under way
    daemon.start()
    assert list((daemon.l2_root / ".tmp").iterdir()) == []
    assert daemon.l1_bytes() == 0
    wait_until(lambda: set(daemon.l2_files()) <= _files_with_rows(daemon), SWEPT_WITHIN_S)


def _files_with_rows(daemon: Daemon) -> set[Path]:
    uri = f"file:{daemon.state_dir / 'catalog.sqlite'}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as catalog:
        rows = catalog.execute("SELECT namespace, id, generation FROM entries").fetchall()
    return {daemon.l2_root / n / i / f"{g}.safetensors" for n, i, g in rows}


def test_an_idle_daemon_ends_at_sigterm_with_0_and_empties_memory(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(is_forked=False)
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(daemon.stub(), user)
    assert daemon.l1_bytes() > 0
    assert daemon.stop() == 0
    assert daemon.l1_bytes() == 0
    assert "Traceback" not in daemon.log_text()


def test_a_call_without_a_deadline_gets_the_default_one(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(
        is_forked=False, GRPC__DEFAULT_DEADLINE_S="0.3", ORIGIN__ADDED_LATENCY_MS="1500"
    )
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    request = pb.GetHumanRequest(user_id=user, category=pb.HUMAN_CATEGORY_UPPER_BODY)
    with refused() as refusal:
        daemon.stub().GetHuman(request)
    assert refusal.status == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")
    # The fill went on; a caller that names a longer deadline gets its entry.
    assert daemon.stub().GetHuman(request, timeout=TIMEOUT_S).entry.tensors
    assert daemon.metrics()["cachesvc_fills_total"] == 1


@pytest.mark.parametrize("name", ["", SERVICE])
def test_the_standard_health_service_says_serving(daemon: Daemon, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(daemon.channel())
    answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_service_and_describes_it(daemon: Daemon) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(daemon.channel())
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    listed, described = stub.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S)
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    assert described.file_descriptor_response.file_descriptor_proto


def test_probes_answer_as_json(daemon: Daemon) -> None:
    for path in ("/livez", "/readyz"):
        status, body = daemon.http(path)
        assert status == 200
        assert json.loads(body)["status"]


def test_readiness_does_not_wait_on_a_scan_of_100_000_entries(
    new_daemon: NewDaemon, record_property: Callable[[str, object], None]
) -> None:
    """Promise 6. Measured from the start of the process, imports included."""
    daemon = new_daemon(is_forked=False)
    empty_cpu_s = daemon.cpu_s()
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(stub, user)
    assert daemon.stop() == 0
    multiply_row(daemon.state_dir / "catalog.sqlite", user, ROWS)

    ready_s = daemon.start()

    cpu_s = daemon.cpu_s()
    record_property("ready_s", ready_s)
    record_property("ready_cpu_s", cpu_s)
    record_property("empty_cpu_s", empty_cpu_s)
    assert get_human(stub, user).info.tier == pb.TIER_DISK
    assert stub.Stats(pb.StatsRequest()).disk.entries == ROWS + 1
    assert cpu_s < most_cpu_s(empty_cpu_s)


def test_readiness_does_not_wait_on_the_walk_for_litter(new_daemon: NewDaemon) -> None:
    """Promise 6."""
    daemon = new_daemon(is_forked=False)
    daemon.kill()
    for number in range(LITTER):
        directory = daemon.l2_root / "garment" / f"g{number}"
        directory.mkdir()
        (directory / "1.safetensors").touch()
    before = len(daemon.log_text())
    daemon.start()
    wait_until(lambda: "litter_removed" in daemon.log_text()[before:], SWEPT_WITHIN_S)
    logged = [json.loads(line)["event"] for line in daemon.log_text()[before:].splitlines()]
    assert logged.index("serving") < logged.index("litter_removed")
    assert daemon.l2_files() == []
