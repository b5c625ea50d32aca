"""Do probes, the status page and the log say why a running daemon is not ready?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, wait_until
from tests.support.engine.mounts import SmallFilesystem, small_filesystem
from tests.support.grpc_calls import TIMEOUT_S, get_human, refused
from tests.support.sample_objects import fresh_id

SIZE_BYTES = 4 << 20
SERVICE = "cachesvc.v1.CacheService"
Status = health_pb2.HealthCheckResponse.ServingStatus
# The daemon retries every second.
MENDED_WITHIN_S = 20.0


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[dict[str, SmallFilesystem]]:
    """The filesystems of the settings STATE_DIR and L2__ROOT."""
    with (
        small_filesystem(tmp_path / "state", SIZE_BYTES) as state,
        small_filesystem(tmp_path / "l2", SIZE_BYTES) as l2,
    ):
        yield {"STATE_DIR": state, "L2__ROOT": l2}


def test_a_daemon_that_can_make_nothing_durable_is_not_ready_until_it_can(
    new_daemon: NewDaemon, disks: dict[str, SmallFilesystem]
) -> None:
    """Promise 1: an invalidation that is not durable yet shows, and so does its end."""
    daemon = new_daemon(**{name: str(disk.path) for name, disk in disks.items()})
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(daemon.stub(), user)
    daemon.wait_until_stored()
    disks["STATE_DIR"].fill()
    disks["L2__ROOT"].set_read_only(True)
    with refused() as refusal:
        invalidate(daemon, user)
    assert refusal.status == (grpc.StatusCode.UNAVAILABLE, "NOT_DURABLE")
    status, body = daemon.http("/readyz")
    assert status == 503
    assert "invalidations" in json.loads(body)["problems"]
    assert daemon.http("/health")[0] == 503
    assert daemon.metrics()["cachesvc_ready"] == 0
    report = json.loads(daemon.http("/api/status")[1])
    assert report["ready"] is False
    assert "invalidations_not_durable" in [advice["id"] for advice in report["warnings"]]
    # Liveness probes ask for the server (""): a restart could bring back the invalidated entry.
    wait_until(lambda: health(daemon, SERVICE) == Status.NOT_SERVING, MENDED_WITHIN_S)
    assert health(daemon, "") == Status.SERVING

    disks["L2__ROOT"].set_read_only(False)
    disks["STATE_DIR"].free()

    wait_until(lambda: daemon.http("/readyz")[0] == 200, MENDED_WITHIN_S)
    wait_until(lambda: health(daemon, SERVICE) == Status.SERVING, MENDED_WITHIN_S)
    invalidate(daemon, user)
    lines = [json.loads(line) for line in daemon.log_text().splitlines()]
    said = [line for line in lines if line["event"] in ("not_ready", "ready_again")]
    assert {line["level"] for line in said} == {"warning"}
    assert (said[0]["event"], said[-1]["event"]) == ("not_ready", "ready_again")


def invalidate(daemon: Daemon, user: str) -> None:
    request = pb.InvalidateRequest(user_id=user)
    daemon.stub().Invalidate(request, timeout=TIMEOUT_S)


def health(daemon: Daemon, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    stub = health_pb2_grpc.HealthStub(daemon.channel())
    return stub.Check(request, timeout=TIMEOUT_S).status  # type: ignore[no-any-return]
