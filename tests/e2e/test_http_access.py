"""Who may do what over HTTP, and which requests can a foreign web page make a browser send?

Promise 10.
"""

from __future__ import annotations

import pytest

from tests.conftest import NewDaemon
from tests.support.daemons import Daemon
from tests.support.http_calls import ask
from tests.support.sample_objects import fresh_id

OPEN = (("GET", "/livez"), ("GET", "/readyz"), ("GET", "/health"), ("GET", "/metrics"))
OBSERVED = (
    ("GET", "/"),
    ("GET", "/api/status"),
    ("GET", "/api/history"),
    ("GET", "/api/events"),
)
FIND = ("GET", "/api/key/garment/c1")
WARM = ("POST", "/cache/warmup")
INVALIDATIONS = (
    ("DELETE", "/cache/human/u1"),
    ("DELETE", "/cache/garment/c1"),
    ("DELETE", "/api/key/garment/c1"),
)
PURGE = ("DELETE", "/cache/all")
EVERY = (*OPEN, *OBSERVED, FIND, WARM, *INVALIDATIONS, PURGE)
# A role may do what its row names, and nothing else.
ALLOWED = {
    "observer": {*OPEN, *OBSERVED},
    "worker": {*OPEN, *OBSERVED, FIND, WARM},
    "backend": {*OPEN, *OBSERVED, FIND, WARM, *INVALIDATIONS},
    "admin": set(EVERY),
}


@pytest.mark.parametrize("role", ALLOWED)
def test_each_role_may_do_what_the_table_says_and_nothing_else(
    new_daemon: NewDaemon, role: str
) -> None:
    daemon = new_daemon(HTTP__LOOPBACK_ROLE=role)
    for method, path in EVERY:
        body = {"user_id": "u1"} if method == "POST" else None
        answer = ask(daemon, method, path, body=body)
        if (method, path) in ALLOWED[role]:
            assert answer.status == 200, (method, path)
        else:
            assert (answer.status, answer.reason) == (403, "ROLE_MISSING"), (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none", "Origin": "https://evil.example"},
    ],
    ids=str,
)
@pytest.mark.parametrize(("method", "path"), [WARM, *INVALIDATIONS, PURGE])
def test_a_page_of_another_origin_cannot_change_anything(
    daemon: Daemon, method: str, path: str, headers: dict[str, str]
) -> None:
    before = daemon.metrics()["cachesvc_invalidations_total"]
    body = {"user_id": fresh_id("u")} if method == "POST" else None
    answer = ask(daemon, method, path, body=body, **headers)
    assert (answer.status, answer.reason) == (403, "CROSS_SITE_REQUEST")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert daemon.metrics()["cachesvc_invalidations_total"] == before


def test_the_daemons_own_page_may(daemon: Daemon) -> None:
    for host in (f"localhost:{daemon.http_port}", f"127.0.0.1:{daemon.http_port}"):
        answer = ask(
            daemon,
            "DELETE",
            f"/cache/human/{fresh_id('u')}",
            Host=host,
            Origin=f"http://{host}",
            Sec_Fetch_Site="same-origin",
        )
        assert answer.status == 200


def test_a_form_of_a_foreign_page_cannot_warm(daemon: Daemon) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = ask(
            daemon, "POST", "/cache/warmup", body='{"user_id": "u"}', Content_Type=content_type
        )
        assert (answer.status, answer.reason) == (415, "UNSUPPORTED_CONTENT_TYPE")


def test_a_preflight_is_not_granted(daemon: Daemon) -> None:
    answer = ask(
        daemon,
        "OPTIONS",
        "/cache/all",
        Origin="https://evil.example",
        Access_Control_Request_Method="DELETE",
    )
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil", ""])
@pytest.mark.parametrize("path", ["/api/status", "/api/key/garment/c1", "/health"])
def test_a_name_that_was_pointed_at_us_reads_nothing(daemon: Daemon, host: str, path: str) -> None:
    answer = ask(daemon, "GET", path, Host=host)
    assert (answer.status, answer.reason) == (403, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["LOCALHOST", "127.0.0.1:80", "[::1]:8002", "192.0.2.7:8002"])
def test_localhost_and_addresses_are_good_hosts(daemon: Daemon, host: str) -> None:
    assert ask(daemon, "GET", "/readyz", Host=host).status == 200


def test_a_configured_name_is_a_good_host(new_daemon: NewDaemon) -> None:
    daemon = new_daemon(HTTP__ALLOWED_HOSTS='["gpu-1.internal"]')
    assert ask(daemon, "GET", "/readyz", Host="gpu-1.internal:8002").status == 200
    assert ask(daemon, "GET", "/readyz", Host="gpu-2.internal:8002").status == 403
