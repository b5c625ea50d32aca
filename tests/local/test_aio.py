"""Does the asyncio client deliver locally as the other one does?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from cachesvc_client import AsyncCacheClient, CacheClient, CacheUnavailable, NotCached
from cachesvc_client.entry import AsyncEntry
from tests.conftest import NewDaemon
from tests.local.interposed import AioHeldReports
from tests.local.test_daemon_ends import TRUSTED_S
from tests.local.versioned import put_version, version_of
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]
# A miss without an owner is FAILED_PRECONDITION, so an owner that has nothing is named.
NOBODY = "nobody"


async def test_hits_are_local_and_an_invalidation_ends_them(
    daemon: Daemon, client: CacheClient
) -> None:
    text = fresh_id("text")
    await asyncio.to_thread(put_version, client, text, 1)
    async with AsyncCacheClient(daemon.target) as cache:
        first = await cache.get_text(text)
        before = (await cache.stats()).requests.memory_hits
        assert version_of(await cache.get_text(text)) == 1
        assert (await cache.stats()).requests.memory_hits == before
        assert cache.transport == "shared_file"
        assert await first.is_current()
        await cache.invalidate(clothing_id=text)
        with pytest.raises(NotCached):
            await cache.get_text(text, owner_id=NOBODY)
        assert not await first.is_current()
        assert version_of(first) == 1


async def test_no_local_hit_is_older_than_what_was_acknowledged(daemon: Daemon) -> None:
    text, floor, over = fresh_id("text"), 0, False
    stale: list[tuple[int, int]] = []
    gets = 0

    async def read(cache: AsyncCacheClient) -> None:
        nonlocal gets
        while not over:
            seen_floor = floor
            try:
                entry: AsyncEntry = await cache.get_text(text, owner_id=NOBODY)
            except NotCached:
                continue
            gets += 1
            found = version_of(entry)
            if found < seen_floor:
                stale.append((found, seen_floor))
            await asyncio.sleep(0)  # a local hit awaits nothing, and others want to run

    with CacheClient(daemon.target) as writer:
        async with AsyncCacheClient(daemon.target) as cache:
            readers = [asyncio.create_task(read(cache)) for _ in range(4)]
            for version in range(1, 25):
                await asyncio.to_thread(put_version, writer, text, version)
                floor = version
                await asyncio.to_thread(writer.invalidate, clothing_id=text)
                floor = version + 1
            over = True
            await asyncio.gather(*readers)
    assert stale == []
    assert gets > 0


async def test_a_whole_try_on_needs_no_call_the_second_time(daemon: Daemon) -> None:
    user, coat = fresh_id("user"), fresh_id("coat")
    samples = (
        sample_objects.person(user),
        sample_objects.garment(coat, user),
        sample_objects.text(coat, user),
    )
    await asyncio.to_thread(sample_objects.put_in_folder, daemon.origin_dir, *samples)
    async with AsyncCacheClient(daemon.target) as cache:
        await cache.get_tryon(user, coat)
        await cache.get_tryon(user, coat)
        before = (await cache.stats()).requests
        tryon = await cache.get_tryon(user, coat)
        after = (await cache.stats()).requests
        assert after.memory_hits == before.memory_hits
    found = (tryon.human, tryon.garment, tryon.text)
    assert all(
        sample.matches(bytes(entry.blob)) for sample, entry in zip(samples, found, strict=True)
    )


async def test_closing_reports_the_hits(new_daemon: NewDaemon, new_client: NewClient) -> None:
    daemon, text = await asyncio.to_thread(new_daemon), fresh_id("text")
    client = new_client(daemon)
    await asyncio.to_thread(put_version, client, text, 1)
    async with AsyncCacheClient(daemon.target) as cache:
        for _ in range(6):
            await cache.get_text(text)
    stats = await asyncio.to_thread(client.stats)
    assert stats.requests.local_hits == 5


async def test_closing_waits_for_the_report_that_is_being_sent(
    new_daemon: NewDaemon, new_client: NewClient
) -> None:
    daemon, text = await asyncio.to_thread(new_daemon), fresh_id("text")
    client = new_client(daemon)
    await asyncio.to_thread(put_version, client, text, 1)
    async with AsyncCacheClient(daemon.target) as cache:
        held = AioHeldReports(cache._link)
        cache._link = held
        for _ in range(4):
            await cache.get_text(text)
        await held.begun.wait()
    stats = await asyncio.to_thread(client.stats)
    assert stats.requests.local_hits == 3


async def test_hits_wait_for_a_loop_that_runs(new_daemon: NewDaemon, new_client: NewClient) -> None:
    daemon, text = await asyncio.to_thread(new_daemon), fresh_id("text")
    client, cache = new_client(daemon), AsyncCacheClient(daemon.target)
    await asyncio.to_thread(put_version, client, text, 1)

    async def get_three_times() -> None:
        for _ in range(3):
            await cache.get_text(text)

    await asyncio.to_thread(asyncio.run, get_three_times())
    cache._local.step()  # as the upkeep does, while no loop of this client runs
    await cache.close()
    stats = await asyncio.to_thread(client.stats)
    assert stats.requests.local_hits == 2


async def test_local_hits_end_with_the_daemon(new_daemon: NewDaemon, new_client: NewClient) -> None:
    daemon, text = await asyncio.to_thread(new_daemon), fresh_id("text")
    await asyncio.to_thread(put_version, new_client(daemon), text, 1, ttl=timedelta(hours=1))
    async with AsyncCacheClient(daemon.target, wait_s=0) as cache:
        kept = await cache.get_text(text)
        await asyncio.to_thread(daemon.kill)
        killed_s = last_s = time.monotonic()

        async def get_until_it_fails() -> None:
            nonlocal last_s
            while True:
                started_s = time.monotonic()
                await cache.get_text(text)
                last_s = started_s

        with pytest.raises(CacheUnavailable):
            await get_until_it_fails()
        assert last_s <= killed_s + TRUSTED_S
        assert version_of(kept) == 1
