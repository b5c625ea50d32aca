"""While no daemon answers, do calls fail fast, and are they answered once it is back? Promise 9."""

from __future__ import annotations

import asyncio
import socket as sockets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cachesvc_client import AsyncCacheClient, CacheClient, CacheUnavailable, LocalOptions
from cachesvc_client.testing import InMemoryCacheClient
from tests.client.support import values
from tests.client.support.blocking import Blocking
from tests.client.support.scripted_server import ScriptedServer
from tests.support.server_processes import ReservedPort

WAIT_S = 0.3
# In 8 threads. If each call waited, they would take 112 s, and a test has 60 s.
CALLS = 3000
INLINE = LocalOptions(enabled=False)


@pytest.fixture(params=["sync", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Any] = []

    def client(target: str, wait_s: float) -> Any:
        if request.param == "sync":
            made.append(CacheClient(target, wait_s=wait_s, local=INLINE))
        else:
            made.append(Blocking(AsyncCacheClient(target, wait_s=wait_s, local=INLINE)))
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.fixture(params=["unix", "tcp"])
def away(request: pytest.FixtureRequest, socket: Path) -> Iterator[str]:
    """The target of no daemon: a socket's path, or a port that refuses connections."""
    if request.param == "unix":
        yield str(socket)
        return
    port = ReservedPort()
    yield f"127.0.0.1:{port.number}"
    port.release()


def test_after_one_wait_in_vain_every_threads_calls_fail_at_once(make: Any, away: str) -> None:
    client = make(away, WAIT_S)
    with pytest.raises(CacheUnavailable, match=r"within 0\.3 s"):
        client.stats()
    with ThreadPoolExecutor(8) as pool:
        errors = list(pool.map(lambda _: error_of(client), range(CALLS)))
    assert all(isinstance(error, CacheUnavailable) for error in errors)


def test_calls_that_begin_during_a_wait_end_with_it(socket: Path) -> None:
    begun = threading.Barrier(9)

    def call(client: CacheClient) -> BaseException | None:
        begun.wait(20)
        return error_of(client)

    with CacheClient(str(socket), wait_s=WAIT_S, local=INLINE) as client:
        with ThreadPoolExecutor(8) as pool:
            pending = [pool.submit(call, client) for _ in range(8)]
            begun.wait(20)
            assert isinstance(error_of(client), CacheUnavailable)
        assert all(isinstance(one.result(), CacheUnavailable) for one in pending)
        assert client._link._outage.is_known  # type: ignore[attr-defined]


def test_the_first_call_after_the_daemon_is_back_is_answered(make: Any, socket: Path) -> None:
    client = make(str(socket), WAIT_S)
    assert isinstance(error_of(client), CacheUnavailable)
    assert isinstance(error_of(client), CacheUnavailable)
    with ScriptedServer(socket):
        for _ in range(3):
            assert client.stats().puts == 0


def test_a_call_in_a_later_outage_waits_again(make: Any, socket: Path) -> None:
    client = make(str(socket), 20)
    server = ScriptedServer(socket)
    InMemoryCacheClient(server.service).put_human("u1", **values.human())
    for _ in range(2):
        with ThreadPoolExecutor(1) as pool:
            pending = pool.submit(client.get_human, "u1")
            with server:
                assert pending.result(20).info.key.id == "u1"


def test_a_dead_daemons_socket_fails_calls_at_once_and_its_successor_answers(
    make: Any, socket: Path
) -> None:
    client = make(str(socket), WAIT_S)
    with sockets.socket(sockets.AF_UNIX) as dead:
        dead.bind(str(socket))
    for _ in range(CALLS // 8):
        assert isinstance(error_of(client), CacheUnavailable)
    socket.unlink()
    with ScriptedServer(socket):
        client.stats()


def test_a_task_that_is_cancelled_during_its_look_takes_no_right_along(socket: Path) -> None:
    async def run() -> None:
        async with AsyncCacheClient(str(socket), wait_s=WAIT_S, local=INLINE) as client:
            with pytest.raises(CacheUnavailable):
                await client.stats()
            outage = client._link._outage  # type: ignore[attr-defined]
            assert outage.is_known
            looking = asyncio.create_task(client.stats())
            await asyncio.sleep(0)
            looking.cancel()
            await asyncio.wait([looking])
            with ScriptedServer(socket):
                assert (await client.stats()).puts == 0

    asyncio.run(run())


def error_of(client: Any) -> BaseException | None:
    try:
        client.stats()
    except CacheUnavailable as error:
        return error
    return None
