"""Does the router say that a warm-up goes on only if the daemon has accepted it?

The real FastAPI and real clients run in this process, with a server that the test holds.
`tests/e2e/test_http_router.py` has a real daemon.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from cachesvc_client import AsyncCacheClient, CacheClient
from cachesvc_client import fastapi as router
from cachesvc_client.testing import MemoryService
from tests.client.support.scripted_server import Hold, ScriptedServer

BODY = json.dumps({"user_id": "u1"}).encode()
PERSONS_CATEGORIES = 3


class LongWarmUps(MemoryService):
    """Answers what it will fetch, and fetches nothing until the test releases it."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def stream(self, method: str, request: bytes) -> Iterator[bytes]:
        messages = iter(super().stream(method, request))
        yield next(messages)
        assert self.go.wait(30)
        yield from messages


@pytest.fixture(params=["sync", "aio"])
async def asked(
    request: pytest.FixtureRequest, socket: Path
) -> AsyncIterator[tuple[FastAPI, ScriptedServer]]:
    """An app with a client of either kind, connected to a server."""
    service, app = LongWarmUps(), FastAPI()
    with ScriptedServer(socket, service) as server:
        client: CacheClient | AsyncCacheClient
        if request.param == "sync":
            client = CacheClient(server.target)
            await asyncio.to_thread(client.stats)
        else:
            client = AsyncCacheClient(server.target)
            await client.stats()
        app.include_router(router.cache_router(client))
        yield app, server
        service.go.set()
        if isinstance(client, AsyncCacheClient):
            await client.close()
        else:
            client.close()


async def post_warmup(app: FastAPI) -> tuple[int, Any]:
    """Return status and body as an ASGI server receives them."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": BODY}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/cache/warmup",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await app(scope, receive, send)
    return said[0]["status"], json.loads(said[1]["body"])


async def test_a_warm_up_that_takes_long_goes_on(
    asked: tuple[FastAPI, ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "WARM_WAIT_S", 1.0)
    status, body = await post_warmup(asked[0])
    assert status == 202
    assert (body["status"], body["done"], body["total"]) == ("running", 0, PERSONS_CATEGORIES)


async def test_a_warm_up_that_a_hung_daemon_never_took_is_no_success(
    asked: tuple[FastAPI, ScriptedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, server = asked
    hold = Hold()
    server.script("Warm", hold)
    monkeypatch.setattr(router, "WARM_WAIT_S", 0.2)
    status, body = await post_warmup(app)
    hold.release()
    assert status == 504
    assert body["error"]["code"] == "DEADLINE_EXCEEDED"
