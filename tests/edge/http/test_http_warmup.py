"""Does a warm-up over HTTP answer in time, and go on in the background if it takes longer?

The real routes run over a real engine whose origin a test holds.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientSession

from cachesvc.config import HttpSettings
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants
from cachesvc.core.keys import EntryKey
from cachesvc.edge.audit import AuditedInvalidations
from cachesvc.edge.http.access import HttpAccess
from cachesvc.edge.http.operations import OperationRoutes
from cachesvc.edge.http.server import HttpServer
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "user1")
BODY = {"user_id": PERSON.id, "categories": ["upper_body"]}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[EngineHouse]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as runtime:
        house = EngineHouse(tmp_path, Path(runtime))
        house.open(max_concurrent_warmups=1)
        yield house
        await house.end()


async def test_a_long_warm_up_is_said_to_be_running_and_goes_on(house: EngineHouse) -> None:
    house.upload(PERSON, 1)
    stop = house.gates.stop(f"origin {house.object_keys(PERSON)[0]}")
    routes = OperationRoutes(
        house.cache, AuditedInvalidations(house.cache, None), warm_wait_s=0.05
    ).routes()
    settings = HttpSettings()
    access = HttpAccess(settings, lambda: Grants({}, []), Clock())
    server = HttpServer(settings, access, routes, deadline_s=20.0)
    port = await server.start("127.0.0.1:0")
    url = f"http://127.0.0.1:{port}/cache/warmup"
    async with ClientSession() as session:
        answer = await session.post(url, json=BODY)
        assert answer.status == 202
        body = await answer.json()
        assert (body["status"], body["done"], body["total"]) == ("running", 0, 1)
        # The warm-up still counts as a running one.
        second = await session.post(url, json=BODY)
        assert (second.status, second.headers["Retry-After"]) == (429, "1")
        assert (await second.json())["error"]["reason"] == "TOO_MANY_WARMUPS"
        await stop.reached()
        stop.release()
        await house.settle()
    await server.close()
    assert (await house.get(PERSON)).tier == "memory"
