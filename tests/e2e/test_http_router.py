"""Does an inference server serve V2's routes at its own address, with V2's answers?

Real uvicorn and FastAPI run in their own process, in front of a real daemon. Promise 1: a DELETE
that is answered there is an acknowledged invalidation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cachesvc_client.v2 import TwoLevelCacheV2
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support import sample_objects, server_processes
from tests.support.daemons import ROOT, Daemon
from tests.support.grpc_calls import get_garment, get_human
from tests.support.http_calls import ask, ask_port
from tests.support.sample_objects import fresh_id
from tests.support.server_processes import ReservedPort


@pytest.fixture(scope="module", params=["sync", "aio"])
def port(
    request: pytest.FixtureRequest, daemon: Daemon, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Start the server with either client, connected to the session's daemon; yield its port."""
    with serving(daemon, request.param, tmp_path_factory.mktemp("router") / "log") as number:
        yield number


@contextmanager
def serving(daemon: Daemon, kind: str, log: Path) -> Iterator[int]:
    reserved = ReservedPort()
    process = server_processes.start(
        [
            sys.executable,
            "-m",
            "tests.support.inference_server",
            kind,
            daemon.target,
            str(reserved.number),
        ],
        log,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
    )
    try:
        url = f"http://127.0.0.1:{reserved.number}/"
        server_processes.wait_until_http_answers(url, process, log)
        yield reserved.number
    finally:
        server_processes.kill(process)
        reserved.release()


def test_deletes_are_final_and_answered_as_the_daemon_answers(daemon: Daemon, port: int) -> None:
    user, clothing, owner = (fresh_id(letter) for letter in "uco")
    stub = daemon.stub()
    old, new = (sample_objects.person(user, seed=seed) for seed in (1, 60))
    sample_objects.put_in_folder(daemon.origin_dir, old, sample_objects.garment(clothing, owner))
    get_human(stub, user)
    get_garment(stub, clothing, owner)
    sample_objects.put_in_folder(daemon.origin_dir, new)

    person = ask_port(port, "DELETE", f"/cache/human/{user}")
    garment = ask_port(port, "DELETE", f"/cache/garment/{clothing}")

    assert new.matches(get_human(stub, user).tensors)
    assert ask(daemon, "GET", f"/api/key/garment/{clothing}").body["tiers"] == []
    for answer, path in ((person, f"human/{user}"), (garment, f"garment/{clothing}")):
        assert (answer.status, answer.body["removed_count"]) == (200, 1)
        assert answer.body["invalidated_at"].endswith("Z")
        own = ask(daemon, "DELETE", f"/cache/{path}").body
        assert {**answer.body, **varying(own)} == own


def varying(body: dict[str, Any]) -> dict[str, Any]:
    return {name: body[name] for name in ("removed_count", "invalidated_at")}


def test_a_warm_up_is_answered_as_the_daemon_answers(daemon: Daemon, port: int) -> None:
    user, clothing, owner = (fresh_id(letter) for letter in "uco")
    sample_objects.put_in_folder(
        daemon.origin_dir,
        sample_objects.person(user),
        sample_objects.garment(clothing, owner),
        sample_objects.text(clothing, owner),
    )
    body = {
        "user_id": user,
        "categories": ["upper_body"],
        "garments": [{"clothing_id": clothing, "owner_id": owner}],
    }
    answer = ask_port(port, "POST", "/cache/warmup", body=body)
    assert answer.status == 200
    assert answer.body == ask(daemon, "POST", "/cache/warmup", body=body).body
    assert (answer.body["status"], answer.body["done"]) == ("success", 3)

    absent = fresh_id("u")
    partly = ask_port(
        port, "POST", "/cache/warmup", body={"user_id": absent, "clothing_ids": ["c"]}
    )
    assert (partly.status, partly.body["total"], len(partly.body["absent"])) == (200, 5, 5)
    assert {one["reason"] for one in partly.body["absent"]} == {"NO_SUCH_OBJECT"}
    assert partly.body["failed"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/cache/human/..%2F..",
        "/cache/human/..",
        "/cache/human/../all",
        "/cache/human/..%2Fall",
        "/cache/human/%2e%2e",
        "/cache/human/",
        "/cache/human/a%2Fb",
        "/cache/garment/-rf",
    ],
)
def test_what_is_no_id_is_400_and_deletes_nothing(daemon: Daemon, port: int, path: str) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    get_human(stub, user)
    answer = ask_port(port, "DELETE", path)
    assert answer.status == 400
    assert answer.reason in ("INVALID_ID", "MISSING_FIELD")
    assert answer.body["detail"] == answer.body["error"]["message"]
    assert get_human(stub, user).info.tier == pb.TIER_MEMORY


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"user_id": ".."}, 400),
        ({}, 400),
        ({"user_id": "u", "categories": ["shoes"]}, 400),
        ([], 422),
    ],
)
def test_a_body_that_is_no_warm_up_is_refused(port: int, body: object, status: int) -> None:
    assert ask_port(port, "POST", "/cache/warmup", body=body).status == status


def test_statistics_are_the_same_wherever_they_are_asked_for(daemon: Daemon, port: int) -> None:
    get_human_twice(daemon)
    of_daemon = ask(daemon, "GET", "/health").body["cache_stats"]
    of_server = ask_port(port, "GET", "/cache/stats").body
    old = TwoLevelCacheV2(target=daemon.target)
    of_class = old.get_stats()
    old.close()
    assert of_server == {"status": "success", "cache_stats": of_daemon}
    assert {name: of_class[name] for name in of_daemon} == of_daemon
    assert of_daemon["l1_hits"] > 0


def get_human_twice(daemon: Daemon) -> None:
    user, stub = fresh_id("u"), daemon.stub()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
    for _ in range(2):
        get_human(stub, user)


def test_everything_is_deleted(daemon: Daemon, port: int) -> None:
    get_human_twice(daemon)
    answer = ask_port(port, "DELETE", "/cache/all")
    assert (answer.status, answer.body["message"]) == (200, "All cache cleared")
    assert answer.body["removed_count"] > 0
    assert ask(daemon, "GET", "/health").body["cache_stats"]["l1_human_upper_count"] == 0


def test_a_daemon_that_is_away_is_503(new_daemon: NewDaemon, tmp_path: Path) -> None:
    daemon = new_daemon()
    with serving(daemon, "sync", tmp_path / "log") as port:
        daemon.stop()
        answer = ask_port(port, "DELETE", f"/cache/human/{fresh_id('u')}")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.body["error"]["code"] == "UNAVAILABLE"
