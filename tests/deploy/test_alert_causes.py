"""Does each alert fire by its cause, on a real Prometheus that scrapes a real daemon?

The rules are those of `deploy/`; only their windows and waits are shorter. `alerts.test.yml` has
the times themselves, on series made by hand. Promise 10.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import yaml

from cachesvc_client import CacheClient
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects, strace
from tests.support.cgroups import real_group
from tests.support.daemons import Daemon, running_daemon, s3_settings, wait_until
from tests.support.engine.mounts import small_filesystem
from tests.support.grpc_calls import TIMEOUT_S, get_garment, put
from tests.support.prometheus import RULES, Prometheus, require_prometheus, running_prometheus
from tests.support.s3.servers import S3Server
from tests.support.sample_objects import fresh_id, put_in_folder
from tests.support.secured import Credentials, secured_daemon

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
MIB = 1 << 20
# A `for` of 5 minutes becomes 5 s, with 20 scrapes; a day becomes 24 minutes.
SHORTENED_BY = 60
WITHIN_S = 60.0
OWNER = "shop"
# No cause of these can be made; alerts.test.yml alone fires them.
NO_CAUSE = {
    "CachesvcDefect": "a call ends INTERNAL by a defect of the daemon alone, and none is known",
}
# The preface and an empty SETTINGS frame: the daemon leaves callers that say nothing.
HTTP2_BEGINS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
_DECLARED: list[str] = []


def by_cause(*alerts: str) -> pytest.MarkDecorator:
    """Hand the alerts to the test that causes them, and remember that they have a cause."""
    _DECLARED.extend(alerts)
    return pytest.mark.parametrize("alerts", [alerts], ids=["-".join(alerts)])


class Stage:
    """Shows daemons to Prometheus."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus

    def watch(self, daemon: Daemon) -> Daemon:
        """Let it be scraped once before anything happens."""
        self._prometheus.add(_instance(daemon))
        return daemon

    def assert_all_fire(self, daemon: Daemon, alerts: tuple[str, ...]) -> None:
        """Return once each of the alerts has fired for the daemon."""
        wanted, instance = set(alerts), _instance(daemon)
        wait_until(
            lambda: wanted <= self._prometheus.fired(instance),
            WITHIN_S,
            lambda: (
                f"fired: {self._prometheus.fired(instance)}, "
                f"pending: {self._prometheus.alerts('pending', instance)}, "
                f"up: {self._prometheus.query('up')}"
            ),
        )


def _instance(daemon: Daemon) -> str:
    return daemon.settings["HTTP__LISTEN"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    require_prometheus()
    folder = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(folder, shortened_by=SHORTENED_BY) as prometheus:
        yield Stage(prometheus)


@pytest.fixture(scope="module", autouse=True)
def healthy(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that works well beside all causes, with hits, misses, absences and changes."""
    settings = {"L2__MAX_BYTES": str(64 * MIB)}
    folder = tmp_path_factory.mktemp("healthy")
    with running_daemon(folder, settings, is_forked=True) as daemon:
        stage.watch(daemon)
        garments = [stored_garment(daemon) for _ in range(3)]
        numbers = itertools.count()

        def use() -> None:
            number = next(numbers)
            for clothing in garments:
                get_garment(daemon.stub(), clothing, OWNER)
            if number % 20 == 0:
                invalidate(daemon, garments[0])
                with contextlib.suppress(grpc.RpcError):
                    get_garment(daemon.stub(), fresh_id("absent"), OWNER)
                put(daemon.stub(), "garment", garments[1], sample(garments[1]).blob())

        with again_and_again(use, pause_s=0.1):
            yield daemon


@contextlib.contextmanager
def again_and_again(call: Callable[[], object], pause_s: float = 0.02) -> Iterator[None]:
    """Repeat `call` in a thread until the `with` ends. A refused call is part of the cause."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(pause_s):
            with contextlib.suppress(grpc.RpcError):
                call()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def sample(clothing: str) -> sample_objects.Sample:
    return sample_objects.garment(clothing, OWNER)


def prepared_garment(daemon: Daemon) -> str:
    clothing = fresh_id("g")
    put_in_folder(daemon.origin_dir, sample(clothing))
    return clothing


def stored_garment(daemon: Daemon) -> str:
    """Return a garment that is in both tiers."""
    clothing = prepared_garment(daemon)
    get_garment(daemon.stub(), clothing, OWNER)
    daemon.wait_until_stored()
    return clothing


def get_any(daemon: Daemon) -> None:
    get_garment(daemon.stub(), fresh_id("g"), OWNER)


def miss(daemon: Daemon) -> None:
    get_garment(daemon.stub(), prepared_garment(daemon), OWNER)


def invalidate(daemon: Daemon, clothing: str) -> None:
    daemon.stub().Invalidate(pb.InvalidateRequest(clothing_id=clothing), timeout=TIMEOUT_S)


# ---- is it there?


@by_cause("CachesvcDown")
def test_a_daemon_that_was_killed(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())
    daemon.kill()
    stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcNotReady")
def test_a_state_directory_that_was_moved(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())
    daemon.state_dir.rename(daemon.state_dir.with_name("moved"))
    stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcRestarting")
def test_a_daemon_that_is_killed_again_and_again(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())
    with again_and_again(daemon.restart, pause_s=1.0):
        stage.assert_all_fire(daemon, alerts)


# ---- does it serve?


@by_cause("CachesvcHitRatioCollapsed")
def test_entries_that_leave_faster_than_they_are_used(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())
    clothing = stored_garment(daemon)
    for _ in range(2000):
        get_garment(daemon.stub(), clothing, OWNER)
    with again_and_again(lambda: miss(daemon)):
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcFillsSlow")
def test_an_origin_that_takes_four_seconds(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon(ORIGIN__ADDED_LATENCY_MS="4000"))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(again_and_again(lambda: miss(daemon)))
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcQueueNearlyFull", "CachesvcRefusingLoad")
def test_more_misses_than_the_daemon_takes_at_once(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon(LIMITS__MAX_FLIGHTS="5", ORIGIN__ADDED_LATENCY_MS="5000"))
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(again_and_again(lambda: miss(daemon)))
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcLoopLagging")
def test_a_process_that_gets_no_processor(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())

    def starve() -> None:
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(0.6)
        os.kill(daemon.pid, signal.SIGCONT)

    # Once within the time for which the daemon keeps the worst: no scrape fails between two.
    with again_and_again(starve, pause_s=20.0):
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcDescriptorsLow")
def test_clients_that_open_connections_and_keep_them(
    stage: Stage, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    limit = 400
    daemon = Daemon(tmp_path, under=("prlimit", f"--nofile={limit}:{limit}"))
    with contextlib.ExitStack() as stack:
        stack.callback(daemon.close)
        daemon.start()
        stage.watch(daemon)
        free = limit - int(daemon.metrics()["cachesvc_process_open_fds"])
        for _ in range(free - 20):
            caller = stack.enter_context(socket.socket(socket.AF_UNIX))
            caller.connect(str(daemon.socket))
            caller.sendall(HTTP2_BEGINS)
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcCallersRefused")
def test_a_caller_without_the_role(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())
    purge = pb.InvalidateRequest(everything=True)
    with again_and_again(lambda: daemon.stub().Invalidate(purge, timeout=TIMEOUT_S)):
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcReloadFailing")
def test_a_certificate_that_is_replaced_by_what_is_none(
    stage: Stage, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    credentials = Credentials(tmp_path)
    credentials.know()
    with secured_daemon(tmp_path, credentials, demand_certificates=False) as (daemon, _):
        stage.watch(daemon)
        fresh = credentials.cert_file.with_suffix(".new")
        fresh.write_text("no certificate")
        fresh.rename(credentials.cert_file)
        stage.assert_all_fire(daemon, alerts)


@pytest.mark.parametrize(
    ("left", "alerts"),
    [
        (timedelta(days=10), ("CachesvcCertificateEndsSoon",)),
        (timedelta(days=1), ("CachesvcCertificateEndsSoon", "CachesvcCertificateEnding")),
    ],
    ids=["ten days", "one day"],
)
def test_a_certificate_near_its_end(
    stage: Stage, tmp_path: Path, left: timedelta, alerts: tuple[str, ...]
) -> None:
    credentials = Credentials(tmp_path)
    credentials.know()
    end = datetime.now(UTC) + left
    certificate = credentials.authority.issue("localhost", between=(end - timedelta(days=90), end))
    certificate.write(tmp_path, "server")
    with secured_daemon(tmp_path, credentials, demand_certificates=False) as (daemon, _):
        stage.assert_all_fire(stage.watch(daemon), alerts)


_DECLARED += ["CachesvcCertificateEndsSoon", "CachesvcCertificateEnding"]


# ---- is data gone when it has to be?


@by_cause(
    "CachesvcInvalidationsNotDurable",
    "CachesvcInvalidationsFailing",
    "CachesvcTombstonesStuck",
    "CachesvcNotReady",
)
def test_disks_that_take_no_write(
    stage: Stage, new_daemon: NewDaemon, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    with (
        small_filesystem(tmp_path / "state", 4 * MIB) as state,
        small_filesystem(tmp_path / "l2", 4 * MIB) as l2,
    ):
        daemon = new_daemon(STATE_DIR=str(state.path), L2__ROOT=str(l2.path))
        clothing = stored_garment(stage.watch(daemon))
        state.fill()
        l2.set_read_only(True)
        with again_and_again(lambda: invalidate(daemon, clothing)):
            stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcInvalidationsSlow")
def test_a_disk_that_takes_a_third_of_a_second_for_a_commit(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    need_strace()
    daemon = stage.watch(new_daemon(is_forked=False))
    clothing = stored_garment(daemon)
    slow = strace.slow_syncs(daemon.pid, 0.35)
    with slow, again_and_again(lambda: invalidate(daemon, clothing)):
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcCatalogStuck", "CachesvcTombstonesStuck")
def test_a_disk_that_hangs(stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]) -> None:
    need_strace()
    daemon = stage.watch(new_daemon(is_forked=False))
    clothing = stored_garment(daemon)
    hung = strace.slow_syncs(daemon.pid, 60.0)
    with hung, again_and_again(lambda: invalidate(daemon, clothing)):
        stage.assert_all_fire(daemon, alerts)
        daemon.kill()  # it would wait for its disk


def need_strace() -> None:
    if reason := strace.why_not_available():
        pytest.skip(reason)


# ---- the origin


@by_cause("CachesvcOriginFailing", "CachesvcOriginCircuitOpen", "CachesvcRequestsFailing")
def test_an_s3_that_is_switched_off(
    stage: Stage, new_daemon: NewDaemon, s3_server: S3Server, alerts: tuple[str, ...]
) -> None:
    settings = s3_settings(s3_server, s3_server.new_bucket())
    # Shortened as the windows are.
    daemon = new_daemon(
        environment=s3_server.credentials(), **settings, ORIGIN__BREAKER_OPEN_S="0.1"
    )
    stage.watch(daemon)
    s3_server.stop_serving()
    try:
        with again_and_again(lambda: get_any(daemon)):
            stage.assert_all_fire(daemon, alerts)
    finally:
        s3_server.start_serving()


@by_cause("CachesvcOriginDenied")
def test_a_bucket_that_was_deleted(
    stage: Stage, new_daemon: NewDaemon, s3_server: S3Server, alerts: tuple[str, ...]
) -> None:
    bucket = s3_server.new_bucket()
    daemon = new_daemon(environment=s3_server.credentials(), **s3_settings(s3_server, bucket))
    stage.watch(daemon)
    s3_server.client().delete_bucket(Bucket=bucket)
    with again_and_again(lambda: get_any(daemon)):
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcDecodeFailing")
def test_an_object_that_is_neither_image_nor_tensor(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = stage.watch(new_daemon())
    clothing = prepared_garment(daemon)
    for object_key in sample(clothing).objects:
        (daemon.origin_dir / object_key).write_bytes(b"neither image nor tensor")
    with contextlib.suppress(grpc.RpcError):
        get_garment(daemon.stub(), clothing, OWNER)
    stage.assert_all_fire(daemon, alerts)


# ---- disk and memory


@by_cause("CachesvcEntriesDamaged")
def test_a_file_of_l2_that_was_overwritten(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = new_daemon()
    clothing = stored_garment(daemon)
    (file,) = daemon.l2_files()
    daemon.restart()  # L1 is empty then
    stage.watch(daemon)
    file.write_bytes(bytes(file.stat().st_size))
    get_garment(daemon.stub(), clothing, OWNER)
    stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcCatalogLost")
def test_a_catalog_that_was_overwritten(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    daemon = new_daemon()
    stored_garment(daemon)
    daemon.stop()
    (daemon.state_dir / "catalog.sqlite").write_bytes(bytes(1 << 16))
    daemon.start()
    stage.assert_all_fire(stage.watch(daemon), alerts)


@by_cause("CachesvcDiskAtFloor", "CachesvcDiskRejecting")
def test_others_fill_the_disk_of_l2(
    stage: Stage, new_daemon: NewDaemon, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    with small_filesystem(tmp_path / "nvme", 64 * MIB) as nvme:
        daemon = new_daemon(
            L2__ROOT=str(nvme.path / "l2"),
            L2__MAX_BYTES=str(32 * MIB),
            L2__FREE_FLOOR_BYTES=str(8 * MIB),
        )
        stored_garment(stage.watch(daemon))
        nvme.fill()
        with again_and_again(lambda: miss(daemon)):
            stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcDiskAtFloor")
def test_others_take_room_and_l2_gives_way(
    stage: Stage, new_daemon: NewDaemon, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    with small_filesystem(tmp_path / "nvme", 64 * MIB) as nvme:
        daemon = new_daemon(
            L2__ROOT=str(nvme.path / "l2"),
            L2__MAX_BYTES=str(32 * MIB),
            L2__FREE_FLOOR_BYTES=str(8 * MIB),
        )
        stage.watch(daemon)
        (nvme.path / "theirs").write_bytes(bytes(40 * MIB))
        with again_and_again(lambda: miss(daemon)):
            stage.assert_all_fire(daemon, alerts)
        # L2 keeps the floor free all the time.
        assert daemon.metrics()['cachesvc_filesystem_free_bytes{tier="disk"}'] >= 8 * MIB


@by_cause("CachesvcEvictionBehind")
def test_an_l2_that_is_too_full_for_a_catalog_that_takes_no_write(
    stage: Stage, new_daemon: NewDaemon, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    with small_filesystem(tmp_path / "state", 4 * MIB) as state:
        daemon = new_daemon(STATE_DIR=str(state.path))
        for _ in range(3):
            clothing = fresh_id("g")
            large = sample_objects.garment(clothing, OWNER, sizes=sample_objects.REAL)
            put_in_folder(daemon.origin_dir, large)
            get_garment(daemon.stub(), clothing, OWNER)
        daemon.wait_until_stored()
        daemon.stop()
        daemon.settings["L2__MAX_BYTES"] = str(8 * MIB)
        daemon.start()
        state.fill()  # before the first step of L2's upkeep, 5 s after the start
        stage.assert_all_fire(stage.watch(daemon), alerts)


@by_cause("CachesvcHeldBytesHigh")
def test_a_worker_that_keeps_what_was_invalidated(
    stage: Stage, new_daemon: NewDaemon, alerts: tuple[str, ...]
) -> None:
    # Two persons of 8 MB each.
    daemon = stage.watch(new_daemon(L1__MAX_BYTES=str(28 * MIB)))
    users = [fresh_id("u") for _ in range(2)]
    people = (sample_objects.person(user, sizes=sample_objects.REAL) for user in users)
    put_in_folder(daemon.origin_dir, *people)
    with CacheClient(str(daemon.socket)) as client:
        kept = [client.get_human(user, "upper_body") for user in users]
        for user in users:
            client.invalidate(user_id=user)
        stage.assert_all_fire(daemon, alerts)
        del kept


@by_cause("CachesvcMemoryFilesystemFull")
def test_others_fill_the_tmpfs_of_l1(
    stage: Stage, new_daemon: NewDaemon, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    with small_filesystem(tmp_path / "shm", 64 * MIB) as shm:
        daemon = new_daemon(RUNTIME_DIR=str(shm.path / "r"), L1__MAX_BYTES=str(32 * MIB))
        stage.watch(daemon)
        shm.fill()
        stage.assert_all_fire(daemon, alerts)


@by_cause("CachesvcMemoryLimitTooLow")
def test_a_cgroup_with_less_memory_than_l1(
    stage: Stage, tmp_path: Path, alerts: tuple[str, ...]
) -> None:
    join = 'echo $$ > "$0/inner/cgroup.procs" && exec "$@"'
    # `serve` refuses a limit below l1.max_bytes, which is 512 MiB here.
    with real_group(600 * MIB) as group:
        daemon = Daemon(tmp_path, under=("sh", "-c", join, str(group)))
        try:
            daemon.start()
            stage.assert_all_fire(stage.watch(daemon), alerts)
        finally:
            daemon.close()


# ---- all of them


def test_every_alert_has_a_cause_here_or_a_reason_why_not() -> None:
    text = (RULES / "cachesvc.alerts.yml").read_text()
    names = {rule["alert"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    assert names == set(_DECLARED) | NO_CAUSE.keys()
    assert not set(_DECLARED) & NO_CAUSE.keys()


def test_nothing_fired_for_the_daemon_that_was_well(stage: Stage, healthy: Daemon) -> None:
    """It runs beside all tests above, under the same rules."""
    assert stage._prometheus.fired(_instance(healthy)) == set()
