"""Which checks does every request pass, and how is one caller kept from harming others?

The real server runs on a real socket, with the test's own routes. Promises 5 and 10.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiohttp import (
    ClientSession,
    HttpVersion,
    HttpVersion10,
    HttpVersion11,
    TCPConnector,
    web,
)

from cachesvc.config import HttpSettings
from cachesvc.core import errors
from cachesvc.core.access import Action, Principal, Role
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants
from cachesvc.core.errors import CacheError
from cachesvc.edge.http.access import HttpAccess
from cachesvc.edge.http.routes import Route
from cachesvc.edge.http.server import IDLE_S, MAX_BODY_BYTES, HttpServer
from cachesvc.edge.statuses import DeadlineExceeded

Handle = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]
# As in docs/http.md: the contract, not a copy of the code's table.
STATUSES: list[tuple[CacheError, int, str]] = [
    (errors.InvalidRequest("m"), 400, "INVALID_ARGUMENT"),
    (errors.Unauthenticated("m"), 401, "UNAUTHENTICATED"),
    (errors.PermissionDenied("m"), 403, "PERMISSION_DENIED"),
    (errors.NoSuchObject("m"), 404, "NOT_FOUND"),
    (errors.Aborted("m"), 409, "ABORTED"),
    (errors.PreconditionFailed("m"), 412, "FAILED_PRECONDITION"),
    (errors.OriginDenied("m"), 412, "FAILED_PRECONDITION"),
    (errors.Overloaded("m"), 429, "RESOURCE_EXHAUSTED"),
    (errors.OriginDataCorrupt("m"), 500, "DATA_LOSS"),
    (errors.CacheError("m"), 500, "INTERNAL"),
    (errors.OriginUnavailable("m"), 503, "UNAVAILABLE"),
    (errors.NotDurable("m"), 503, "UNAVAILABLE"),
    (errors.Draining("m"), 503, "UNAVAILABLE"),
    (DeadlineExceeded("m"), 504, "DEADLINE_EXCEEDED"),
]


@asynccontextmanager
async def serving(
    handle: Handle,
    *,
    method: str = "GET",
    action: Action = Action.OBSERVE,
    address: str = "127.0.0.1:0",
    deadline_s: float = 20.0,
    idle_s: float = IDLE_S,
    **settings: Any,
) -> AsyncIterator[int]:
    """Serve `/it`; yield the port."""
    http = HttpSettings(**settings)
    server = HttpServer(
        http,
        HttpAccess(http, lambda: Grants({}, []), Clock()),
        [Route(method, "/it", action, handle)],
        deadline_s=deadline_s,
        idle_s=idle_s,
    )
    port = await server.start(address)
    try:
        yield port
    finally:
        await server.close()


@asynccontextmanager
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession(connector=TCPConnector(force_close=True)) as session:
        yield session


async def fine(_: web.Request, _caller: Principal) -> web.Response:
    return web.json_response({"fine": True})


# ---- errors


@pytest.mark.parametrize(("error", "status", "code"), STATUSES, ids=lambda v: type(v).__name__)
async def test_every_error_has_the_status_of_its_code(
    error: CacheError, status: int, code: str
) -> None:
    async def fail(_: web.Request, _caller: Principal) -> web.Response:
        raise error

    async with serving(fail) as port, client() as session:
        answer = await session.get(f"http://127.0.0.1:{port}/it")
        assert answer.status == status
        assert await answer.json() == {
            "error": {"reason": error.reason, "message": "m", "code": code},
            "detail": "m",
        }
        assert ("Retry-After" in answer.headers) == (status in (429, 503))
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)


async def test_a_defect_says_nothing_of_what_it_was_about() -> None:
    async def fail(_: web.Request, _caller: Principal) -> web.Response:
        raise RuntimeError("user-secret-17")

    async with serving(fail) as port, client() as session:
        answer = await session.get(f"http://127.0.0.1:{port}/it")
        assert answer.status == 500
        assert "user-secret-17" not in await answer.text()
        assert (await answer.json())["error"]["reason"] == "INTERNAL"


async def test_what_is_not_served_is_refused_in_the_same_form() -> None:
    async with serving(fine) as port, client() as session:
        absent = await session.get(f"http://127.0.0.1:{port}/that")
        wrong = await session.put(f"http://127.0.0.1:{port}/it")
        assert (absent.status, (await absent.json())["error"]["reason"]) == (404, "NO_SUCH_ROUTE")
        assert (wrong.status, (await wrong.json())["error"]["reason"]) == (
            405,
            "METHOD_NOT_ALLOWED",
        )
        assert wrong.headers["Allow"] == "GET,HEAD"
        for answer in (absent, wrong):
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


# ---- callers


@pytest.mark.parametrize(("role", "action"), list(itertools.product(Role, Action)))
async def test_a_route_is_for_those_whose_role_allows_its_action(
    role: Role, action: Action
) -> None:
    async with serving(fine, action=action, loopback_role=role) as port, client() as session:
        answer = await session.get(f"http://127.0.0.1:{port}/it")
        allowed = Principal("x", frozenset({role})).may(action)
        assert answer.status == (200 if allowed else 403)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer unknown"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=203.0.113.7"},
        {"X-Real-IP": "203.0.113.7"},
        {"Via": "1.1 proxy.example"},
        {"X-Forwarded-Host": "cache.example"},
        {"X-Forwarded-Proto": "https"},
        {"CF-Connecting-IP": "203.0.113.7"},
        {"X-Envoy-External-Address": "203.0.113.7"},
        {"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"},
        {"X-Original-URL": "/cache/all"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_a_stranger_is_not_taken_for_a_caller_on_this_host(headers: dict[str, str]) -> None:
    async with serving(fine) as port, client() as session:
        answer = await session.get(f"http://127.0.0.1:{port}/it", headers=headers)
        assert answer.status == 401


@pytest.mark.parametrize(("version", "status"), [(HttpVersion10, 401), (HttpVersion11, 200)])
async def test_a_proxy_that_adds_no_header_is_known_by_its_old_version_of_http(
    version: HttpVersion, status: int
) -> None:
    """nginx sends HTTP/1.0 unless it is configured otherwise."""
    async with serving(fine) as port, ClientSession(version=version) as session:
        assert (await session.get(f"http://127.0.0.1:{port}/it")).status == status


async def test_a_caller_from_another_address_needs_a_credential() -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    async with serving(fine, address="0.0.0.0:0") as port, client() as session:
        assert (await session.get(f"http://{address}:{port}/it")).status == 401
        assert (await session.get(f"http://127.0.0.1:{port}/it")).status == 200


def own_address() -> str | None:
    """Return an address of this machine that is not loopback; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


# ---- limits


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async def read(request: web.Request, _: Principal) -> web.Response:
        return web.json_response({"bytes": len(await request.read())})

    async with serving(read, method="POST") as port, client() as session:
        url = f"http://127.0.0.1:{port}/it"
        fits = await session.post(url, data=b"x" * (MAX_BODY_BYTES - 1))
        assert await fits.json() == {"bytes": MAX_BODY_BYTES - 1}
        beyond = await session.post(url, data=b"x" * (MAX_BODY_BYTES + 1))
        assert beyond.status == 413
        assert (await beyond.json())["error"]["reason"] == "BODY_TOO_LARGE"


async def test_a_body_that_does_not_come_ends_at_the_deadline() -> None:
    async def read(request: web.Request, _: Principal) -> web.Response:
        await request.read()
        raise AssertionError("it never ends")

    async with serving(read, method="POST", deadline_s=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /it HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx")
        assert b" 504 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /it HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /it HTTP/1.1\r\nHost: localhost\r\n" + b"X: x\r\n" * 500 + b"\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["a long header", "many headers", "a long path"],
)
async def test_headers_beyond_the_limits_are_refused(head: bytes) -> None:
    async with serving(fine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert b" 400 " in await reader.readline()
        writer.close()


async def test_headers_that_do_not_come_end_the_connection() -> None:
    async with serving(fine, idle_s=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /it HTTP/1.1\r\nHost: loc")
        assert await reader.read() == b""
        writer.close()


async def test_whoever_says_nothing_makes_way_for_whoever_asks() -> None:
    async with serving(fine, max_connections=8) as port, AsyncExitStack() as stack:
        silent = [await connected(stack, port) for _ in range(8)]
        silent[1][1].write(b"GET /it HTTP/1.1\r\nHost: loc")  # the rest is never sent
        async with client() as session:
            for _ in range(2):
                assert (await session.get(f"http://127.0.0.1:{port}/it")).status == 200
        # The connections end in the order in which they came.
        assert await silent[0][0].read() == b""


async def test_a_connection_at_work_is_never_the_one_to_go() -> None:
    arrived, released = asyncio.Semaphore(0), asyncio.Event()

    async def wait(_: web.Request, _caller: Principal) -> web.Response:
        arrived.release()
        await released.wait()
        return web.json_response({})

    async with serving(wait, max_connections=8) as port, AsyncExitStack() as stack:
        busy = [await connected(stack, port) for _ in range(8)]
        for _, writer in busy:
            writer.write(b"GET /it HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in busy:
            await arrived.acquire()
        late_reader, _ = await connected(stack, port)
        assert await late_reader.read() == b""
        released.set()
        for reader, _ in busy:
            assert b" 200 " in await reader.readline()


async def connected(
    stack: AsyncExitStack, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    return reader, writer


async def test_bytes_that_are_not_http_are_refused_and_logged_nowhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(fine) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01user-secret-17\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()
    assert "user-secret-17" not in caplog.text
    assert json.dumps(caplog.messages) == "[]"
