"""Does a Put that is refused leave a file that no row names?

Promise 5: L2 counts the bytes of its rows. A file without a row takes space that nothing counts
until the next start's sweep. No sweep runs in these tests.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from cachesvc.core.errors import Aborted, CacheError, NotDurable, Overloaded
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import key_scope
from cachesvc.core.watermarks import Watermarks
from tests.support.engine.house import EngineHouse

PERSON = EntryKey("human_upper_body", "alice")
NO_ROOM = Watermarks(1, 1, 1)
POINTS = ("put_checked", "l2_write", "l2_written", "l1_written", "l2_removed")


async def reopen(house: EngineHouse, watermarks: Watermarks, memory_bytes: int = 1 << 20) -> None:
    """Restart without a sweep, with an L2 or an L1 that has no room left."""
    house.watermarks, house.memory_max_bytes = watermarks, memory_bytes
    await house.restart()


def assert_only_rows_have_files(house: EngineHouse) -> None:
    """Check that each file of L2 has a row, and that L2 counts exactly the bytes of these files."""
    named = {row.meta.generation for row in house.catalog.hottest(100)}
    assert {int(path.stem) for path in house.files()} == named
    assert list((house.root / ".tmp").iterdir()) == []
    assert house.disk.room.occupied_bytes == sum(
        -(-path.stat().st_size // 4096) * 4096 for path in house.files()
    )
    assert house.disk.room.reserved_bytes == 0


@pytest.mark.parametrize(
    ("point", "l2"),
    # A Put deletes the older row itself only if L2 has no room.
    [(point, "no room") for point in POINTS] + [(point, "room") for point in POINTS[:-1]],
)
async def test_a_put_that_an_invalidation_fences_leaves_no_file(
    house: EngineHouse, point: str, l2: str
) -> None:
    await house.put(PERSON, 1)
    if l2 == "no room":
        await reopen(house, NO_ROOM)
    stop = house.gates.stop(point)
    putting = asyncio.create_task(house.put(PERSON, 2))
    await stop.reached()
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    with pytest.raises(Aborted) as failed:
        await putting
    assert failed.value.reason == "PUT_FENCED"
    await house.settle()
    assert house.files() == []
    assert_only_rows_have_files(house)


@pytest.mark.parametrize("point", POINTS)
async def test_a_put_whose_caller_left_and_that_is_fenced_then_leaves_no_file(
    house: EngineHouse, point: str
) -> None:
    await house.put(PERSON, 1)
    await reopen(house, NO_ROOM)
    stop = house.gates.stop(point)
    putting = asyncio.create_task(house.put(PERSON, 2))
    await stop.reached()
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    await house.cache.invalidate(key_scope(PERSON))
    stop.release()
    await house.settle()
    assert_only_rows_have_files(house)


async def test_a_put_that_no_tier_has_room_for_leaves_no_file_of_the_older_entry(
    house: EngineHouse,
) -> None:
    await house.put(PERSON, 1)
    await reopen(house, NO_ROOM, memory_bytes=1)
    with pytest.raises(Overloaded) as failed:
        await house.put(PERSON, 2)
    assert failed.value.reason == "NO_ROOM"
    assert house.files() == []
    assert_only_rows_have_files(house)


async def test_an_outdated_put_leaves_the_stored_entry_and_no_other_file(
    house: EngineHouse,
) -> None:
    read_at_ns = house.clock.read().wall_ns
    house.clock.advance(1)
    await house.put(PERSON, 1)
    with pytest.raises(Aborted) as failed:
        await house.put(PERSON, 2, as_of_ns=read_at_ns - 1)
    assert failed.value.reason == "PUT_OUTDATED"
    assert await house.version(PERSON) == 1
    assert_only_rows_have_files(house)


@pytest.mark.parametrize("error", [NotDurable("the disk is full"), ValueError("a defect")])
async def test_a_put_whose_row_cannot_be_committed_leaves_the_older_file_alone(
    house: EngineHouse, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.put(PERSON, 1)
    refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    refused.set_exception(error)
    with monkeypatch.context() as patch:
        patch.setattr(house.catalog, "upsert", lambda row: refused)
        with pytest.raises(type(error)):
            await house.put(PERSON, 2)
    await house.settle()
    assert len(house.files()) == 1
    assert_only_rows_have_files(house)
    house.memory.remove(PERSON, Leaving.BYTES_LIMIT)
    assert await house.version(PERSON) == 1


async def test_a_put_that_l1_cannot_even_reserve_room_for_leaves_no_file(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(house.memory, "reserve", refuse)
    with pytest.raises(OSError, match="Read-only"):
        await house.put(PERSON, 1)
    assert house.files() == []
    assert_only_rows_have_files(house)


@pytest.mark.parametrize("what", ["a Put", "a fill"])
async def test_a_file_whose_directory_cannot_be_synced_is_taken_away_again(
    house: EngineHouse, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At that point the file has its final name, and no row will ever name it."""
    rename, fsync, is_in_place = os.rename, os.fsync, False

    def unsynced(fd: int) -> None:
        if is_in_place:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    def renamed(*args: Any, **more: Any) -> None:
        nonlocal is_in_place
        rename(*args, **more)
        is_in_place = True

    house.upload(PERSON, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", unsynced)
        patch.setattr(os, "rename", renamed)
        if what == "a Put":
            await house.put(PERSON, 1)
        else:
            await house.get(PERSON)
        await house.settle()
    assert house.files() == []
    assert_only_rows_have_files(house)


async def test_a_commit_that_ends_in_a_defect_leaves_no_file(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a defect")

    house.upload(PERSON, 1)
    monkeypatch.setattr(house.disk, "commit", broken)
    assert await house.version(PERSON) == 1
    await house.settle()
    assert house.files() == []
    assert_only_rows_have_files(house)


@pytest.mark.parametrize("refusal", ["PUT_FENCED", "NO_ROOM"])
async def test_refused_puts_of_many_keys_do_not_fill_the_disk(
    house: EngineHouse, refusal: str
) -> None:
    keys = [EntryKey(PERSON.namespace, f"user{number}") for number in range(8)]
    for key in keys:
        await house.put(key, 1)
    await reopen(house, NO_ROOM, memory_bytes=1 if refusal == "NO_ROOM" else 1 << 20)
    for key in keys:
        stop = house.gates.stop("l2_removed")
        putting = asyncio.create_task(house.put(key, 2))
        await stop.reached()
        if refusal == "PUT_FENCED":
            await house.cache.invalidate(key_scope(key))
        stop.release()
        with pytest.raises(CacheError) as failed:
            await putting
        assert failed.value.reason == refusal
    await house.settle()
    assert house.files() == []
    assert_only_rows_have_files(house)
