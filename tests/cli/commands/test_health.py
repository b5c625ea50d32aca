"""Does `cachesvc health` tell a probe the truth in every phase of a daemon's life?"""

from __future__ import annotations

import json
from concurrent import futures

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.cli.conftest import Run, RunApart
from tests.support.daemons import Daemon

SERVICE = "cachesvc.v1.CacheService"
# The default timeout includes connecting; it suits a probe, and not a busy machine.
PATIENT = ("--timeout", "20")
Status = health_pb2.HealthCheckResponse.ServingStatus


@pytest.fixture
def draining(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A server that answers and does not serve, as a draining daemon."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set(SERVICE, Status.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize("options", [(), ("--ready",)])
def test_a_serving_daemon_is_code_0(run: Run, options: tuple[str, ...]) -> None:
    asked = run("health", *options, *PATIENT)
    assert (asked.exit_code, asked.stdout) == (0, "serving\n")
    assert json.loads(run("health", *options, "--json", *PATIENT).stdout) == {
        "alive": True,
        "ready": True,
    }


def test_a_draining_daemon_lives_but_is_not_ready(run_alone: Run, draining: str) -> None:
    assert run_alone("health", "--target", draining, *PATIENT).exit_code == 0
    asked = run_alone("health", "--ready", "--json", "--target", draining, *PATIENT)
    assert asked.exit_code == 1
    assert json.loads(asked.stdout) == {"alive": True, "ready": False}
    assert "is not ready" in asked.stderr


def test_a_service_that_is_not_registered_yet_is_not_ready(run_alone: Run) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        target = f"127.0.0.1:{port}"
        assert run_alone("health", "--ready", "--target", target, *PATIENT).exit_code == 1
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_daemon_that_is_away_is_code_4(run_alone: Run, options: tuple[str, ...]) -> None:
    asked = run_alone("health", *options, "--target", "/nonexistent/cachesvc.sock")
    assert asked.exit_code == 4
    assert asked.stderr.count("\n") == 1


def test_a_probe_loads_nothing_that_is_slow_to_load(run_apart: RunApart, daemon: Daemon) -> None:
    slow = ["aioboto3", "aiohttp", "numpy", "PIL", "structlog", "rich.live"]
    report = (
        "import atexit, sys\natexit.register(lambda: print("
        f"'loaded:', [m for m in {slow!r} if m in sys.modules]))"
    )
    target = str(daemon.socket)
    asked = run_apart("health", "--ready", "--target", target, *PATIENT, before=report)
    assert asked.returncode == 0
    assert "loaded: []" in asked.stdout
