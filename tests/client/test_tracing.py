"""Do all calls work in a process whose gRPC calls a tracing library wraps?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    CacheServiceError,
    DeadlineExceeded,
    InvalidRequest,
    LocalOptions,
    NotCached,
)
from tests.client.support import values
from tests.client.support.blocking import Blocking
from tests.client.support.scripted_server import Hold, ScriptedServer, refuse
from tests.support.daemons import Daemon
from tests.support.tracing import TRACERS, Tracing

DRAINING = refuse(grpc.StatusCode.UNAVAILABLE, "leaving", (("cachesvc-reason", "DRAINING"),))
INLINE = LocalOptions(enabled=False)


@pytest.fixture(params=TRACERS)
def traced(request: pytest.FixtureRequest) -> Iterator[None]:
    tracing = Tracing(request.param)
    yield
    tracing.end()


@pytest.fixture(params=["sync", "asyncio"])
def make(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make clients of one kind, which share one way of calling."""
    made: list[Any] = []

    def client(target: str, **options: Any) -> Any:
        if request.param == "sync":
            made.append(CacheClient(target, **options))
        else:
            made.append(Blocking(AsyncCacheClient(target, **options)))
        return made[-1]

    yield client
    for one in made:
        one.close()


@pytest.mark.parametrize("local", [LocalOptions(), INLINE], ids=["shared", "inline"])
def test_every_call_works_under_a_tracing_library(
    traced: None, make: Any, daemon: Daemon, local: LocalOptions
) -> None:
    client = make(daemon.target, local=local)
    user, cloth = values.fresh_id("user"), values.fresh_id("cloth")
    assert client.put_human(user, **values.human()).key.id == user
    client.put_garment(cloth, owner_id=user, **values.garment())
    client.put_text(cloth, owner_id=user, **values.text())
    pose = values.human()["pose_tensor"]
    for _ in range(2):
        assert client.get_human(user)["pose_tensor"].equal(pose)
    assert client.get_human(user).is_current()
    assert client.get_garment(cloth, user).info.key.id == cloth
    assert client.get_text(cloth, user).info.key.id == cloth
    assert client.get_tryon(user, cloth).human["pose_tensor"].equal(pose)
    assert client.get("human_upper_body", user)["pose_tensor"].equal(pose)
    assert client.inspect("human_upper_body", user).tiers
    assert client.stats().puts >= 3
    assert [step.done for step in client.warm(user, categories=["upper_body"])][-1] == 1
    assert client.prefetch([(user, cloth)]).result(20).total == 3
    with pytest.raises(NotCached) as caught:
        client.get("human_upper_body", values.fresh_id("nobody"))
    assert caught.value.reason == "NO_SUCH_OBJECT"
    with pytest.raises(InvalidRequest, match="user_id"):
        client.get_human("../nobody")
    assert client.invalidate(user_id=user).removed_count == 1
    assert client.invalidate(clothing_id=cloth, erase=True).removed_count == 2


def test_a_restart_and_a_drain_are_waited_for_under_a_tracing_library(
    traced: None, make: Any, server: ScriptedServer
) -> None:
    client = make(server.target, local=INLINE)
    client.put_human("u1", **values.human())
    for method in ("GetHuman", "Get", "Put", "Warm"):
        server.script(method, DRAINING)
    client.get_human("u1")
    client.get("human_upper_body", "u1")
    client.put_human("u1", **values.human())
    assert [step.done for step in client.warm("u1")][-1] == 3
    server.stop()
    server.start()
    assert client.get_human("u1").is_current()


def test_a_deadline_is_a_deadline_under_a_tracing_library(
    traced: None, make: Any, server: ScriptedServer
) -> None:
    client = make(server.target, local=INLINE)
    client.stats()
    hold = Hold()
    server.script("GetHuman", hold)
    with pytest.raises(DeadlineExceeded):
        client.get_human("u1", timeout_s=0.5)
    assert hold.ended.wait(20)
    hold.release()


def test_a_stream_that_is_left_early_ends_at_the_daemon_under_a_tracing_library(
    traced: None, server: ScriptedServer
) -> None:
    hold = Hold()
    with CacheClient(server.target, local=INLINE) as client, ThreadPoolExecutor(1) as pool:
        steps = client.warm("u1")
        next(steps)
        steps.close()
        server.script("Get", hold)
        pending = pool.submit(client.get, "human_upper_body", "u1", timeout_s=1)
        assert hold.arrived.wait(20)
        with pytest.raises(DeadlineExceeded):
            pending.result(20)
    assert hold.ended.wait(20)
    hold.release()


def test_a_cancelled_stream_ends_at_the_daemon_under_a_tracing_library(
    traced: None, server: ScriptedServer
) -> None:
    hold = Hold()
    server.script("Get", hold)

    async def cancel() -> None:
        async with AsyncCacheClient(server.target, local=INLINE) as client:
            getting = asyncio.create_task(client.get("human_upper_body", "u1"))
            assert await asyncio.to_thread(hold.arrived.wait, 20)
            getting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await getting
            assert await asyncio.to_thread(hold.ended.wait, 20)

    asyncio.run(cancel())
    hold.release()


class _Refusing(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, *_: Any) -> Any:
        raise grpc.RpcError("no calls today")


def test_an_interceptor_that_refuses_a_call_is_named(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = grpc.insecure_channel
    monkeypatch.setattr(
        grpc,
        "insecure_channel",
        lambda *a, **k: grpc.intercept_channel(made(*a, **k), _Refusing()),
    )
    with ScriptedServer(socket) as server, CacheClient(server.target, local=INLINE) as client:
        with pytest.raises(CacheServiceError, match=r"interceptor .*no calls today") as caught:
            client.stats()
        assert caught.value.reason == "INTERCEPTED"
