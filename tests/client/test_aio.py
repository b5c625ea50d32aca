"""What only the asyncio client has: cancellation, event loops, tasks."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import grpc
import pytest

from cachesvc_client import (
    AsyncCacheClient,
    CacheUnavailable,
    DeadlineExceeded,
    LocalOptions,
    requests,
)
from cachesvc_client._link_aio import AsyncGrpcLink
from cachesvc_client._route import Route
from cachesvc_client.testing import InMemoryCacheClient
from tests.client.support import values
from tests.client.support.scripted_server import Hold, ScriptedServer
from tests.client.test_link import DRAINING


def hold_a_person(server: ScriptedServer) -> None:
    InMemoryCacheClient(server.service).put_human("u1", **values.human())


async def test_a_cancelled_call_tells_the_daemon_and_disturbs_no_other(
    server: ScriptedServer,
) -> None:
    hold_a_person(server)
    hold = Hold()
    server.script("GetHuman", hold)
    async with AsyncCacheClient(server.target) as client:
        cancelled = asyncio.create_task(client.get_human("u1"))
        await asyncio.to_thread(hold.arrived.wait, 20)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert await asyncio.to_thread(hold.ended.wait, 20)
        assert await (await client.get_human("u1")).is_current()
    hold.release()


async def test_many_calls_run_side_by_side(server: ScriptedServer) -> None:
    hold_a_person(server)
    async with AsyncCacheClient(server.target) as client:
        found = await asyncio.gather(*(client.get_human("u1") for _ in range(16)))
        found[0]["pose_tensor"].zero_()
        assert all(entry["pose_tensor"].any() for entry in found[1:])


async def test_a_call_that_is_waiting_for_the_daemon_can_be_cancelled(socket: Path) -> None:
    async with AsyncCacheClient(str(socket), wait_s=600, timeout_s=600) as client:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.get_human("u1"), 0.2)


async def test_a_daemon_that_stays_away_is_unavailable(socket: Path) -> None:
    async with AsyncCacheClient(str(socket), wait_s=0.1) as client:
        with pytest.raises(CacheUnavailable):
            await client.get_human("u1")


async def test_a_restarted_or_leaving_daemon_is_asked_again(server: ScriptedServer) -> None:
    hold_a_person(server)
    async with AsyncCacheClient(server.target, wait_s=20) as client:
        await client.get_human("u1")
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        server.script("GetHuman", DRAINING)
        assert (await client.get_human("u1")).info.key.id == "u1"
        server.script("Get", DRAINING)
        assert (await client.get("human_upper_body", "u1")).info.key.id == "u1"
        server.script("Put", DRAINING)
        assert (await client.put_human("u2", **values.human())).key.id == "u2"


async def test_credentials_are_used_for_the_connection(server: ScriptedServer) -> None:
    local = grpc.local_channel_credentials(grpc.LocalConnectionType.UDS)
    async with AsyncCacheClient(server.target, credentials=local) as client:
        assert (await client.stats()).puts == 0


async def test_leaving_a_warm_up_early_tells_the_daemon(server: ScriptedServer) -> None:
    async with AsyncCacheClient(server.target) as client:
        steps = client.warm("u1")
        assert (await anext(aiter(steps))).total == 3
        await steps.aclose()
        assert (await client.stats()).puts == 0


async def test_a_call_ends_at_its_deadline(server: ScriptedServer) -> None:
    hold = Hold()
    server.script("GetHuman", hold)
    # Connected before, and without attaching: the deadline is for GetHuman alone.
    async with AsyncCacheClient(server.target, local=LocalOptions(enabled=False)) as client:
        await client.stats()
        with pytest.raises(DeadlineExceeded):
            await client.get_human("u1", timeout_s=1)
    hold.release()


def test_each_event_loop_gets_a_connection_of_its_own(server: ScriptedServer) -> None:
    hold_a_person(server)
    client = AsyncCacheClient(server.target)

    async def use() -> bool:
        return await (await client.get_human("u1")).is_current()

    assert asyncio.run(use())
    assert asyncio.run(use())
    asyncio.run(client.close())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(use())


def test_connections_of_closed_loops_are_let_go(server: ScriptedServer) -> None:
    link = AsyncGrpcLink(Route(server.target), 0)
    channels = []

    async def use() -> None:
        await link.ask(requests.stats(), 20)
        channels.extend(
            weakref.ref(known.channel) for known in link._channels._connections.values()
        )

    for _ in range(3):
        asyncio.run(use())
    gc.collect()
    assert [channel() is not None for channel in channels] == [False, False, True]
    asyncio.run(link.close())
    gc.collect()
    assert not any(channel() for channel in channels)


async def test_a_cancelled_prefetch_ends(server: ScriptedServer) -> None:
    hold = Hold()
    server.script("Warm", hold)
    async with AsyncCacheClient(server.target) as client:
        task = client.prefetch([("u1", "c1")])
        await asyncio.to_thread(hold.arrived.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(hold.ended.wait, 20)
    hold.release()
