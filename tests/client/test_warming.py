"""Does a warm-up begin when it is called, and what of one that nobody follows? Promise 8."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref
from typing import Any

import pytest

from cachesvc_client import (
    AsyncCacheClient,
    AsyncWarmUp,
    CacheClient,
    CacheUnavailable,
    InvalidRequest,
    WarmUp,
)
from cachesvc_client.testing import AsyncInMemoryCacheClient, InMemoryCacheClient
from tests.client.support import values
from tests.client.support.scripted_server import Hold, ScriptedServer
from tests.conftest import NewDaemon
from tests.support import sample_objects


def test_a_warm_up_that_nobody_follows_fills_the_cache(new_daemon: NewDaemon) -> None:
    daemon = new_daemon()
    sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person("user-7"))
    with CacheClient(daemon.target) as client:
        client.warm("user-7", categories=["upper_body"])
        # The Get joins the fill that the warm-up began, or finds the entry.
        client.get_human("user-7")
        assert client.stats().fills == 1
        assert client.warm("user-7", categories=["upper_body"]).wait().done == 1


def test_a_warm_up_has_begun_when_the_call_returns(
    server: ScriptedServer, client: CacheClient
) -> None:
    warm_up = client.warm("user-7")
    assert server.calls == ["Warm"]
    assert repr(warm_up) == "<WarmUp 0 of 3 keys>"
    assert next(warm_up).total == 3
    summary = warm_up.wait()
    assert (summary.done, summary.total, len(summary.failed)) == (3, 3, 3)
    assert repr(warm_up) == "<WarmUp 3 of 3 keys, 3 failed>"
    warm_up.close()
    warm_up.close()


async def test_an_asyncio_warm_up_begins_without_being_followed(server: ScriptedServer) -> None:
    async with AsyncCacheClient(server.target) as client:
        hold = Hold()
        server.script("Warm", hold)
        warm_up = client.warm("user-7")
        assert await asyncio.to_thread(hold.arrived.wait, 20)
        assert repr(warm_up) == "<AsyncWarmUp begun>"
        await warm_up.aclose()
        assert await asyncio.to_thread(hold.ended.wait, 20)
        hold.release()
        assert (await client.warm("user-7")).total == 3
        assert [step.done async for step in client.warm("user-7")] == [0, 1, 2, 3]


async def test_a_dropped_warm_up_or_prefetch_runs_to_its_first_answer_and_leaves_nothing(
    server: ScriptedServer,
) -> None:
    unraisable: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: unraisable.append(said))
    async with AsyncCacheClient(server.target) as client:
        hold = Hold()
        server.script("Warm", hold)
        dropped = weakref.ref(client.warm("user-7"))
        prefetched = weakref.ref(client.prefetch([("user-8", "coat-3")]))
        gc.collect()
        assert dropped() is None
        assert prefetched() is not None
        assert await asyncio.to_thread(hold.arrived.wait, 20)
        hold.release()
        while prefetched() is not None:
            await client.stats()
            gc.collect()
    assert unraisable == []
    assert server.calls.count("Warm") == 2


async def test_a_warm_up_that_cannot_begin_says_so_to_the_one_who_asks(tmp_path: Any) -> None:
    """And nobody is told of a failed warm-up that was dropped."""
    unraisable: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: unraisable.append(said))
    async with AsyncCacheClient(str(tmp_path / "s"), wait_s=0) as client:
        client.warm("user-7")
        client.prefetch([("user-8", "coat-3")])
        with pytest.raises(CacheUnavailable):
            await client.warm("user-7").wait()
        with pytest.raises(InvalidRequest):
            client.warm("a/b")
    gc.collect()
    assert unraisable == []
    with CacheClient(str(tmp_path / "s"), wait_s=0) as other, pytest.raises(CacheUnavailable):
        other.warm("user-7")


async def test_a_missing_await_of_is_current_is_an_error_and_not_true() -> None:
    """Promise 1: otherwise the last look always says that the bytes are current."""
    client = AsyncInMemoryCacheClient()
    await client.put_human("user-7", **values.human())
    entry = await client.get_human("user-7")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match=r"write `await entry\.is_current"):
            assert not entry.is_current()  # type: ignore[truthy-bool,unused-ignore]
        gc.collect()
    assert await entry.is_current() is True
    assert await asyncio.create_task(entry.is_current()) is True
    assert await asyncio.gather(entry.is_current(), entry.is_current()) == [True, True]
    assert await asyncio.wait_for(entry.is_current(), 20) is True
    await client.invalidate(user_id="user-7")
    assert await entry.is_current() is False


def test_the_stand_ins_return_the_same_types() -> None:
    assert isinstance(InMemoryCacheClient().warm("user-7"), WarmUp)

    async def use() -> None:
        assert isinstance(AsyncInMemoryCacheClient().warm("user-7"), AsyncWarmUp)

    asyncio.run(use())
