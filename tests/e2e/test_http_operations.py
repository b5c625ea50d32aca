"""Do V2's operations work over HTTP, and are they as final as over gRPC?

Promise 1: a DELETE that answered is an invalidation that was acknowledged.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import subprocess

import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, floor_of_the_whole_disk, wait_until
from tests.support.debian import why_missing
from tests.support.grpc_calls import TIMEOUT_S, get_garment, get_human
from tests.support.http_calls import ask
from tests.support.sample_objects import fresh_id

SUCCESS = {"status", "message", "removed_count", "invalidated_at"}


def test_a_deleted_person_is_filled_anew(daemon: Daemon) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 60))
    sample_objects.put_in_folder(daemon.origin_dir, old)
    get_human(stub, user)
    sample_objects.put_in_folder(daemon.origin_dir, new)
    answer = ask(daemon, "DELETE", f"/cache/human/{user}")
    assert (answer.status, answer.body["status"]) == (200, "success")
    assert answer.body["removed_count"] == 1
    assert set(answer.body) == SUCCESS
    assert new.matches(get_human(stub, user).tensors)


def test_a_deleted_garment_takes_its_text_along(daemon: Daemon) -> None:
    clothing, owner, stub = fresh_id("c"), fresh_id("o"), daemon.stub()
    sample_objects.put_in_folder(
        daemon.origin_dir,
        sample_objects.garment(clothing, owner),
        sample_objects.text(clothing, owner),
    )
    get_garment(stub, clothing, owner)
    stub.GetText(pb.GetTextRequest(clothing_id=clothing, owner_id=owner), timeout=20)
    assert ask(daemon, "DELETE", f"/cache/garment/{clothing}").body["removed_count"] == 2
    for namespace in ("garment", "text"):
        assert ask(daemon, "GET", f"/api/key/{namespace}/{clothing}").body["tiers"] == []


def test_everything_and_one_key_can_be_deleted(daemon: Daemon) -> None:
    users, stub = [fresh_id("u") for _ in range(3)], daemon.stub()
    for user in users:
        sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
        get_human(stub, user)
    one = ask(daemon, "DELETE", f"/api/key/human_upper_body/{users[0]}")
    assert one.body["removed_count"] == 1
    rest = ask(daemon, "DELETE", "/cache/all")
    assert (rest.status, rest.body["status"]) == (200, "success")
    assert rest.body["removed_count"] >= 2
    for user in users:
        assert ask(daemon, "GET", f"/api/key/human_upper_body/{user}").body["tiers"] == []


def test_what_is_not_cached_is_deleted_with_success(daemon: Daemon) -> None:
    answer = ask(daemon, "DELETE", f"/cache/human/{fresh_id('u')}")
    assert (answer.status, answer.body["removed_count"]) == (200, 0)


def test_v2s_commands_work_as_they_stand_in_its_runbook(daemon: Daemon) -> None:
    if (reason := why_missing("curl")) is not None:
        pytest.skip(reason)
    at = f"http://localhost:{daemon.http_port}"
    for command in (
        f"curl -sf -X DELETE {at}/cache/human/user123",
        f"curl -sf -X DELETE {at}/cache/garment/item456",
        f"curl -sf -X DELETE {at}/cache/all",
    ):
        assert curl(command)["status"] == "success"
    assert curl(f"curl -sf {at}/health")["status"] == "healthy"
    warmed = curl(
        f"curl -sf -X POST {at}/cache/warmup -H 'Content-Type: application/json' "
        """-d '{"user_id": "user123", "clothing_ids": ["item456"]}'"""
    )
    assert (warmed["status"], warmed["total"]) == ("success", 5)


def curl(command: str) -> dict[str, object]:
    done = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, check=True, timeout=30
    )
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


# ---- warm-up


def test_a_warm_up_fetches_the_persons_own_garments_and_borrowed_ones(daemon: Daemon) -> None:
    user, own, borrowed, owner = (fresh_id(letter) for letter in "ucco")
    sample_objects.put_in_folder(
        daemon.origin_dir,
        sample_objects.person(user),
        sample_objects.garment(own, user),
        sample_objects.text(own, user),
        sample_objects.garment(borrowed, owner),
        sample_objects.text(borrowed, owner),
    )
    answer = ask(
        daemon,
        "POST",
        "/cache/warmup",
        body={
            "user_id": user,
            "clothing_ids": [own],
            "categories": ["upper_body"],
            "garments": [{"clothing_id": borrowed, "owner_id": owner}],
        },
    )
    assert answer.status == 200
    assert {
        name: answer.body[name] for name in ("status", "done", "total", "absent", "failed")
    } == {
        "status": "success",
        "done": 5,
        "total": 5,
        "absent": [],
        "failed": [],
    }
    for namespace, entry_id in (("human_upper_body", user), ("garment", own), ("text", borrowed)):
        tiers = ask(daemon, "GET", f"/api/key/{namespace}/{entry_id}").body["tiers"]
        assert tiers[0]["tier"] == "memory"


def test_a_warm_up_names_what_the_origin_has_not(daemon: Daemon) -> None:
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    answer = ask(daemon, "POST", "/cache/warmup", body={"user_id": user})
    assert (answer.body["status"], answer.body["total"]) == ("success", 3)
    assert answer.body["message"] == "Warmed 1 of 3 entries"
    assert answer.body["failed"] == []
    absent = {(f["namespace"], f["id"], f["reason"]) for f in answer.body["absent"]}
    assert absent == {
        (namespace, user, "NO_SUCH_OBJECT") for namespace in ("human_lower_body", "human_dresses")
    }


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 400, "MISSING_FIELD"),
        ({"user_id": ".."}, 400, "INVALID_ID"),
        ({"clothing_ids": ["c1"]}, 400, "MISSING_FIELD"),
        ({"user_id": "u", "clothing_ids": ["../x"]}, 400, "INVALID_ID"),
        ({"user_id": "u", "clothing_ids": "c1"}, 400, "INVALID_BODY"),
        ({"user_id": 17}, 400, "INVALID_BODY"),
        ({"user_id": "u", "clothings": []}, 400, "INVALID_BODY"),
        ({"user_id": "u", "categories": ["shoes"]}, 400, "INVALID_BODY"),
        ({"user_id": "u", "clothing_ids": [f"c{n}" for n in range(600)]}, 400, "TOO_MANY_KEYS"),
        ([], 400, "INVALID_BODY"),
        ("{", 400, "INVALID_BODY"),
        ("[" * 10_000, 400, "INVALID_BODY"),
    ],
    ids=str,
)
def test_a_body_that_is_not_a_warm_up_is_refused(
    daemon: Daemon, body: object, status: int, reason: str
) -> None:
    answer = ask(daemon, "POST", "/cache/warmup", body=body)
    assert (answer.status, answer.reason) == (status, reason)
    assert answer.body["detail"] == answer.body["error"]["message"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, gzip", "x"])
@pytest.mark.parametrize("body", ["no gzip at all", "bomb"])
def test_a_body_that_says_it_is_compressed_is_refused_and_never_inflated(
    daemon: Daemon, encoding: str, body: str
) -> None:
    sent = gzip.compress(bytes(100 << 20), 9) if body == "bomb" else body.encode()
    answer = ask(daemon, "POST", "/cache/warmup", body=sent, Content_Encoding=encoding)
    assert (answer.status, answer.reason) == (400, "UNSUPPORTED_CONTENT_ENCODING")


def test_a_body_that_says_it_is_as_it_is_sent_is_read(daemon: Daemon) -> None:
    answer = ask(daemon, "POST", "/cache/warmup", body={}, Content_Encoding="identity")
    assert answer.reason == "MISSING_FIELD"


# ---- statistics, status, events


def test_health_has_v2s_keys(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    for _ in range(3):
        get_human(stub, user)
    body = ask(daemon, "GET", "/health").body
    assert body["status"] == "healthy"
    assert body["models_loaded"] is False
    assert body["caching"] == "2-Level (L1: Memory LRU, L2: SSD)"
    assert body["cache_stats"] == {
        "l1_hits": 2,
        "l2_hits": 0,
        "l3_hits": 1,
        "evictions": 0,
        "stampede_prevented": 0,
        "total_requests": 3,
        "l1_hit_rate": 66.67,
        "l2_hit_rate": 0.0,
        "l1_human_upper_count": 1,
        "l1_human_lower_count": 0,
        "l1_human_dresses_count": 0,
        "l1_garment_count": 0,
        "l1_text_count": 0,
        "l2_disk_usage_gb": 0.0,
        "l2_disk_limit_gb": 50.0,
    }


def test_a_key_is_found_without_being_touched(daemon: Daemon) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(stub, user)
    daemon.wait_until_stored()
    first, second = (ask(daemon, "GET", f"/api/key/human_upper_body/{user}") for _ in range(2))
    assert [tier["tier"] for tier in first.body["tiers"]] == ["memory", "disk"]
    for tier in (*first.body["tiers"], *second.body["tiers"]):
        assert (tier["owner_id"], tier["accesses"]) == (user, 1)
        assert tier["expires_in_s"] > tier["age_s"] >= 0
    assert ask(daemon, "GET", "/api/key/nothing/x").reason == "UNKNOWN_NAMESPACE"


def test_the_status_says_what_stats_says(daemon: Daemon) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(stub, user)
    daemon.wait_until_stored()
    stats = stub.Stats(pb.StatsRequest(), timeout=20)
    status = ask(daemon, "GET", "/api/status").body
    assert (status["ready"], status["version"]) == (True, stats.version)
    assert status["requests"]["origin_fills"] == stats.requests.origin_fills
    assert status["tiers"]["memory"]["size_bytes"] == stats.memory.size_bytes
    assert status["tiers"]["disk"]["entries"] == stats.disk.entries
    assert {n["name"]: n["memory_entries"] for n in status["namespaces"]} == {
        n.namespace: n.memory_entries for n in stats.namespaces
    }
    assert [kind["name"] for kind in status["kinds"]] == ["human", "garment", "text"]
    assert status["latency"]["origin"]["buckets"][-1] == [None, stats.requests.origin_fills]
    assert status["origin"]["circuit"] == "closed"
    assert status["flights"]["running"] == 0
    assert status["caller"]["roles"] == ["admin"]
    assert {"purge", "find"} < set(status["caller"]["may"])
    assert all(status["tiers"][tier]["free_bytes"] > 0 for tier in ("memory", "disk"))


def test_a_disk_at_its_floor_is_a_warning_that_says_what_to_do(new_daemon: NewDaemon) -> None:
    floor = floor_of_the_whole_disk()
    daemon = new_daemon(L2__FREE_FLOOR_BYTES=str(floor))
    status = ask(daemon, "GET", "/api/status").body
    warnings = {warning["id"]: warning for warning in status["warnings"]}
    assert warnings["disk_at_floor"]["severity"] == "warning"
    assert warnings["disk_at_floor"]["do"]
    assert status["tiers"]["disk"]["floor_bytes"] == floor


def test_events_name_ids_only_to_those_who_may_find_them(new_daemon: NewDaemon) -> None:
    """Promise 10."""
    for role, sees_ids in (("worker", True), ("observer", False)):
        daemon = new_daemon(HTTP__LOOPBACK_ROLE=role, KINDS__HUMAN__MAX_ENTRIES="1")
        users, stub = [fresh_id("u") for _ in range(2)], daemon.stub()
        for user in users:
            sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
            get_human(stub, user)
        stub.Invalidate(pb.InvalidateRequest(user_id=users[1]))
        answer = ask(daemon, "GET", "/api/events")
        (evicted,), (invalidated,) = answer.body["evictions"], answer.body["invalidations"]
        assert (evicted["tier"], evicted["reason"]) == ("memory", "entries_limit")
        assert evicted["id"] == (users[0] if sees_ids else None)
        assert (invalidated["scope"], invalidated["removed_count"]) == ("user", 1)
        assert invalidated["target"] == (users[1] if sees_ids else None)
        assert bool(re.search("|".join(users), json.dumps(answer.body))) is sees_ids


def test_the_status_names_no_id(daemon: Daemon) -> None:
    user = fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(daemon.stub(), user)
    for path in ("/api/status", "/health", "/metrics", "/readyz"):
        assert user not in json.dumps(ask(daemon, "GET", path).body)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize(
    "sent",
    [b'Content-Length: 100\r\n\r\n{"user', b'Transfer-Encoding: chunked\r\n\r\n6\r\n{"user\r\n'],
    ids=["of a length", "chunked"],
)
def test_a_caller_that_hangs_up_in_its_body_is_no_error_of_the_daemon(
    new_daemon: NewDaemon, sent: bytes, is_reset: bool
) -> None:
    daemon = new_daemon(LOG_LEVEL="debug")
    head = b"POST /cache/warmup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", daemon.http_port)) as caller:
        caller.sendall(head + sent)
        # Until its request is under way, or the daemon would see the end at once.
        ask(daemon, "GET", "/readyz")
        if is_reset:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: '"/cache/warmup"' in daemon.log_text(), TIMEOUT_S)
    lines = [json.loads(line) for line in daemon.log_text().splitlines()]
    assert [line for line in lines if line["level"] in ("warning", "error")] == []
