"""Does L2 count every byte that is on its disk or will be? Promise 5."""

from __future__ import annotations

import contextlib

from cachesvc.core.watermarks import Watermarks
from cachesvc.tiers.disk_room import DiskRoom

MARKS = Watermarks(low_bytes=80, high_bytes=95, capacity_bytes=100, floor_bytes=10)


def room_with(used_bytes: int, free_bytes: int = 1000) -> DiskRoom:
    return DiskRoom(MARKS, lambda: used_bytes, free_bytes)


def test_what_one_writer_has_reserved_another_does_not_get() -> None:
    room = room_with(40)
    assert room.reserve(60)
    assert not room.reserve(1)
    room.release(60)
    assert room.reserve(1)


def test_leaving_files_take_their_room_until_they_are_unlinked() -> None:
    room = room_with(40)
    with contextlib.suppress(OSError), room.leaving(60):
        assert room.occupied_bytes == 100
        assert not room.reserve(1)
        raise OSError("the disk hung")
    assert room.occupied_bytes == 40


def test_the_quarantine_counts_as_occupied_and_makes_the_cache_smaller() -> None:
    room = room_with(90)
    room.quarantined_bytes = 10
    assert room.occupied_bytes == 100
    assert room.bytes_to_evict(0) == 20


def test_nothing_is_evicted_in_place_of_files_that_are_leaving() -> None:
    room = room_with(50, free_bytes=4)
    assert room.bytes_to_evict(0) == 6
    with room.leaving(6):
        assert room.bytes_to_evict(0) == 0
    assert room.limit_in_force_bytes == 50
