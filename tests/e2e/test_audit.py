"""Does every invalidation leave a line that says who, what, how many and when, and no id?

Promise 10.
"""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, wait_until
from tests.support.grpc_calls import get_garment, get_human, refused
from tests.support.http_calls import ask
from tests.support.sample_objects import fresh_id

LINES_WITHIN_S = 10.0


def audited(daemon: Daemon, at_least: int = 0) -> list[dict[str, Any]]:
    """Return the audit log's lines, once there are `at_least` of them: a thread writes them."""
    wait_until(lambda: len(_lines(daemon)) >= at_least, LINES_WITHIN_S)
    return _lines(daemon)


def _lines(daemon: Daemon) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in daemon.log_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line.get("logger") == "audit"]


def test_each_way_to_remove_says_who_it_was(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(LOG_LEVEL="error")
    user, clothing = fresh_id("u"), fresh_id("c")
    sample_objects.put_in_folder(
        daemon.origin_dir,
        sample_objects.person(user),
        sample_objects.garment(clothing, user),
    )
    get_human(daemon.stub(), user)
    get_garment(daemon.stub(), clothing, user)

    daemon.stub().Invalidate(pb.InvalidateRequest(user_id=user))
    assert ask(daemon, "DELETE", f"/cache/garment/{clothing}").status == 200
    daemon.admin_stub().Invalidate(pb.InvalidateRequest(namespace="text", erase=True))
    assert ask(daemon, "DELETE", "/cache/all").status == 200

    found = [
        (line["event"], line["who"], line["scope"], line["removed"], line["outcome"])
        for line in audited(daemon, at_least=4)
    ]
    assert found == [
        ("invalidated", "unix socket", "user", 1, "ok"),
        ("invalidated", "loopback", "clothing", 1, "ok"),
        ("purged", "admin socket", "namespace", 0, "ok"),
        ("purged", "loopback", "everything", 0, "ok"),
    ]
    assert all(line["at"] and line["timestamp"] for line in audited(daemon))
    assert user not in daemon.log_text()
    assert clothing not in daemon.log_text()


def test_an_id_has_the_same_hash_after_a_restart_and_another_one_elsewhere(
    new_daemon: NewDaemon,
) -> None:
    one, other = new_daemon(), new_daemon()
    user = fresh_id("u")
    for daemon in (one, other):
        daemon.stub().Invalidate(pb.InvalidateRequest(user_id=user))
        audited(daemon, at_least=1)
        daemon.restart()
        daemon.stub().Invalidate(pb.InvalidateRequest(user_id=user))
    hashes = [[line["what"] for line in audited(daemon, at_least=2)] for daemon in (one, other)]

    assert [len(set(each)) for each in hashes] == [1, 1]
    assert hashes[0] != hashes[1]
    assert (one.state_dir / "audit.key").stat().st_mode & 0o777 == 0o600


def test_ids_are_plain_where_the_settings_ask_for_it(new_daemon: NewDaemon) -> None:
    daemon, user = new_daemon(AUDIT__PLAIN_IDS="true"), fresh_id("u")
    daemon.stub().Invalidate(pb.InvalidateRequest(user_id=user))

    assert [line["what"] for line in audited(daemon, at_least=1)] == [user]


def test_a_purge_that_is_refused_removes_nothing_and_says_nothing(daemon: Daemon) -> None:
    before = len(audited(daemon))
    with refused() as refusal:
        daemon.stub().Invalidate(pb.InvalidateRequest(everything=True))
    assert refusal.status == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    assert len(audited(daemon)) == before


@pytest.mark.parametrize("level", ["info", "debug"])
def test_fills_are_lines_at_info_and_calls_at_debug(new_daemon: NewDaemon, level: str) -> None:
    daemon, user = new_daemon(LOG_LEVEL=level), fresh_id("u")
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(daemon.stub(), user)
    last = '"event": "call"' if level == "debug" else '"event": "filled"'
    wait_until(lambda: last in daemon.log_text(), LINES_WITHIN_S)
    lines = [json.loads(line) for line in daemon.log_text().splitlines() if line[:1] == "{"]
    events = [line["event"] for line in lines]

    assert events.count("filled") == 1
    assert events.count("call") == (1 if level == "debug" else 0)
    assert user not in daemon.log_text()
