"""Do metrics and logs say what happens, in closed sets of labels, and never whose data it is?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, running_daemon, wait_until
from tests.support.grpc_calls import TIMEOUT_S, get_garment, get_human, put, refused
from tests.support.http_calls import ask

MAX_SERIES = 300
# Distinctive, so that searching all of the daemon's output for it is meaningful.
MARK = "Xq7zSecret"
USER, OTHER, CLOTHING, OWNER = (f"{MARK}-{n}" for n in ("user", "other", "clothing", "owner"))
# The daemon after its use, and its metrics before.
Used = tuple[Daemon, dict[str, float]]


def use_everything(daemon: Daemon) -> None:
    """Make every call, with hits, misses, errors and damage at the origin."""
    stub = daemon.stub()
    broken = sample_objects.person(OTHER)
    broken.objects[f"users/{OTHER}/vton-cache/upper/mask.png"] = b"not a PNG"
    sample_objects.put_in_folder(
        daemon.origin_dir,
        sample_objects.person(USER),
        sample_objects.garment(CLOTHING, OWNER),
        broken,
    )
    get_human(stub, USER)
    get_human(stub, USER, delivery=pb.DELIVERY_SHARED_FILE)
    get_garment(stub, CLOTHING, OWNER)
    for failing in (
        lambda: get_human(stub, OTHER),
        lambda: get_human(stub, f"../{MARK}"),
        lambda: get_garment(stub, f"{MARK}-absent", OWNER),
        lambda: put(stub, "garment", CLOTHING, MARK.encode()),
        lambda: list(stub.Get(pb.GetRequest(key=pb.EntryKey(namespace=MARK, id=USER)))),
        lambda: stub.GetTryOn(
            pb.GetTryOnRequest(
                user_id=OTHER,
                category=pb.HUMAN_CATEGORY_UPPER_BODY,
                clothing_id=CLOTHING,
                owner_id=OWNER,
            )
        ),
    ):
        with refused():
            failing()
    list(stub.Warm(pb.WarmRequest(user_id=USER), timeout=TIMEOUT_S))
    put(stub, "human_dresses", USER, sample_objects.person(USER).blob())
    stub.Inspect(pb.InspectRequest(key=pb.EntryKey(namespace="garment", id=CLOTHING)))
    stub.Stats(pb.StatsRequest())
    daemon.wait_until_stored()
    stub.Invalidate(pb.InvalidateRequest(user_id=USER))
    stub.Invalidate(pb.InvalidateRequest(owner_id=OWNER))


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Used]:
    folder = tmp_path_factory.mktemp("used")
    with running_daemon(folder, {"LOG_LEVEL": "debug"}, is_forked=True) as daemon:
        before = daemon.metrics()
        use_everything(daemon)
        damage_and_read_again(daemon)
        yield daemon, before


def damage_and_read_again(daemon: Daemon) -> None:
    """Damage one file of L2 and delete another: both are logged."""
    stub = daemon.stub()
    get_human(stub, USER)
    get_garment(stub, CLOTHING, OWNER)
    daemon.wait_until_stored()
    daemon.stop()
    human, garment = daemon.l2_files()[-1], daemon.l2_files()[0]
    assert "human" in str(human)
    data = bytearray(human.read_bytes())
    data[-1] ^= 1
    human.write_bytes(data)
    garment.unlink()
    daemon.start()
    assert get_human(stub, USER).info.tier == pb.TIER_ORIGIN
    assert get_garment(stub, CLOTHING, OWNER).info.tier == pb.TIER_ORIGIN


def test_no_id_is_ever_in_a_metric_or_in_the_log(used: Used) -> None:
    """Promise 10."""
    daemon, _ = used
    assert MARK not in daemon.http("/metrics")[1]
    log = daemon.log_text()
    assert "serving" in log
    assert MARK not in log


def test_every_series_exists_from_the_start_at_zero_and_none_is_added(
    used: Used,
) -> None:
    """Promise 5."""
    daemon, before = used
    ours = set(daemon.metrics())
    assert ours == set(before)
    assert len(daemon.metrics()) <= MAX_SERIES
    assert all(name.startswith("cachesvc_") for name in ours)
    counters = {n: v for n, v in before.items() if n.partition("{")[0].endswith("_total")}
    assert counters.pop("cachesvc_process_cpu_seconds_total") > 0
    assert counters
    assert set(counters.values()) == {0.0}


def test_damage_is_counted_quarantined_and_refilled(
    used: Used,
) -> None:
    """Promise 2."""
    daemon, _ = used
    assert daemon.metrics()["cachesvc_damaged_entries_total"] == 1
    assert len(list((daemon.l2_root / ".quarantine").iterdir())) == 1
    assert sample_objects.person(USER).matches(get_human(daemon.stub(), USER).tensors)


def test_each_call_is_counted_by_rpc_and_by_status(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    use_everything(daemon)
    metrics = daemon.metrics()

    def calls(rpc: str, outcome: str) -> float:
        return metrics[f'cachesvc_calls_total{{outcome="{outcome}",rpc="{rpc}"}}']

    assert calls("GetHuman", "ok") == 2
    assert calls("GetHuman", "refused") == 1  # an invalid id
    assert calls("GetHuman", "failed") == 1  # cannot be decoded
    assert calls("GetGarment", "refused") == 1  # absent
    assert calls("GetTryOn", "failed") == 1
    assert calls("Get", "refused") == 1
    assert (calls("Put", "ok"), calls("Put", "refused")) == (1, 1)
    assert (calls("Warm", "ok"), calls("Inspect", "ok"), calls("Invalidate", "ok")) == (1, 1, 2)
    statuses = {
        name.split('"')[1]: value
        for name, value in metrics.items()
        if name.startswith("cachesvc_call_statuses_total")
    }
    assert statuses["NOT_FOUND"] == 1
    assert statuses["DATA_LOSS"] == 2
    assert statuses["INVALID_ARGUMENT"] == 3
    every = sum(v for name, v in metrics.items() if name.startswith("cachesvc_calls_total"))
    assert sum(statuses.values()) == every
    assert metrics['cachesvc_call_seconds_count{rpc="GetHuman"}'] == 4
    assert metrics['cachesvc_call_seconds_bucket{le="+Inf",rpc="GetHuman"}'] == 4


def test_a_caller_that_leaves_is_counted_as_what_it_saw(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(ORIGIN__ADDED_LATENCY_MS="10000")
    stub = daemon.stub()
    request = pb.GetHumanRequest(user_id=USER, category=pb.HUMAN_CATEGORY_UPPER_BODY)
    call = stub.GetHuman.future(request, timeout=TIMEOUT_S)
    wait_until(lambda: bool(stub.Stats(pb.StatsRequest()).flights), TIMEOUT_S)
    call.cancel()
    with refused() as refusal:
        # Long enough for the call to reach the daemon, also on a busy machine.
        stub.GetHuman(request, timeout=2)
    assert refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED
    statuses = "cachesvc_call_statuses_total"
    for code in ("CANCELLED", "DEADLINE_EXCEEDED"):
        name = f'{statuses}{{code="{code}"}}'
        wait_until(lambda name=name: daemon.metrics()[name] == 1, TIMEOUT_S)  # type: ignore[misc]


def test_limits_and_the_state_of_the_daemon_are_gauges(used: Used) -> None:
    daemon, _ = used
    metrics = daemon.metrics()
    assert metrics["cachesvc_ready"] == 1
    assert metrics['cachesvc_tier_max_bytes{tier="memory"}'] == 512 << 20
    assert metrics['cachesvc_memory_max_entries{namespace="garment"}'] == 100
    assert metrics['cachesvc_queue_max_depth{queue="flights"}'] == 1024
    assert metrics["cachesvc_disk_floor_bytes"] == 0
    for tier in ("memory", "disk"):
        assert metrics[f'cachesvc_filesystem_free_bytes{{tier="{tier}"}}'] > 0
    assert metrics["cachesvc_loop_lag_seconds"] >= 0
    assert metrics["cachesvc_start_time_seconds"] > 0


def test_stats_says_the_same_as_the_scrape(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    use_everything(daemon)
    stats, metrics = daemon.stub().Stats(pb.StatsRequest()), daemon.metrics()
    requests = "cachesvc_requests_total"
    assert metrics[f'{requests}{{tier="memory"}}'] == stats.requests.memory_hits >= 1
    assert metrics[f'{requests}{{tier="origin"}}'] == stats.requests.origin_fills >= 2
    assert metrics["cachesvc_fills_total"] == stats.fills
    assert metrics["cachesvc_failed_fills_total"] == stats.failed_fills >= 2
    assert metrics["cachesvc_invalidations_total"] == stats.invalidations == 2
    assert metrics["cachesvc_puts_total"] == stats.puts == 1
    assert metrics["cachesvc_decode_failures_total"] == stats.decode_failures >= 1
    assert stats.memory.entries == stats.disk.entries == 0


def test_absences_of_a_healthy_origin_are_nowhere_failures(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    stub = daemon.stub()
    people = [f"{MARK}-{n}" for n in range(20)]
    for user in people:
        with refused() as refusal:
            get_human(stub, user)
        assert refusal.code is grpc.StatusCode.NOT_FOUND
    list(stub.Warm(pb.WarmRequest(user_id=f"{MARK}-warmed"), timeout=TIMEOUT_S))
    metrics, stats = daemon.metrics(), stub.Stats(pb.StatsRequest())
    asked = len(people) + 3
    assert metrics["cachesvc_absent_fills_total"] == metrics["cachesvc_fills_total"] == asked
    failures = {
        name: count
        for name, count in metrics.items()
        if re.search(r"fail|error|unavailable|denied|corrupt|reject|damaged", name) and count
    }
    assert failures == {}
    assert (stats.failed_fills, stats.requests.failed, stats.requests.not_found) == (0, 0, asked)
    status = ask(daemon, "GET", "/api/status").body
    assert (status["fills"]["absent"], status["fills"]["failed"]) == (asked, 0)
    assert status["warnings"] == []
    assert "failed" not in daemon.log_text()


def test_an_error_never_names_a_path_of_the_host(daemon: Daemon) -> None:
    with refused() as refusal:
        get_human(daemon.stub(), f"{MARK}-nobody")
    assert refusal.code is grpc.StatusCode.NOT_FOUND
    for path in (daemon.origin_dir, daemon.l2_root, daemon.runtime_dir):
        assert str(path) not in refusal.message + str(refusal.detail)
