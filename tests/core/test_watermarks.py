"""Does eviction start and stop at its marks, and is nothing admitted that does not fit?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.errors import ConfigError
from cachesvc.core.watermarks import Watermarks

MARKS = Watermarks(low_bytes=80, high_bytes=95, capacity_bytes=100, floor_bytes=10)
AMPLE = 10**6
BYTES = st.integers(0, 200)


@pytest.mark.parametrize(
    ("used", "reserved", "to_free"), [(95, 0, 0), (96, 0, 16), (90, 6, 16), (0, 0, 0), (10, 90, 10)]
)
def test_eviction_starts_above_the_high_mark_and_goes_to_the_low_one(
    used: int, reserved: int, to_free: int
) -> None:
    assert MARKS.bytes_to_free(used, reserved, AMPLE) == to_free


def test_a_disk_that_others_filled_makes_the_cache_smaller() -> None:
    assert MARKS.bytes_to_free(50, 0, 10) == 0
    assert MARKS.bytes_to_free(50, 0, 4) == 6
    assert MARKS.bytes_to_free(5, 0, 0) == 5


@given(size=BYTES, used=BYTES, reserved=BYTES, free=BYTES)
def test_what_is_freed_for_an_entry_admits_it_unless_all_is_gone(
    size: int, used: int, reserved: int, free: int
) -> None:
    freed = MARKS.bytes_to_free(used, reserved + size, free)
    left = used - freed
    assert left == 0 or MARKS.admits(size, left, reserved, free + freed)


def test_room_that_fills_under_way_have_reserved_is_not_free_at_the_floor() -> None:
    # 5 above the floor, and other writers are about to write 10.
    assert MARKS.bytes_to_free(50, 10 + 10, 15) == 15


@given(used=BYTES, reserved=BYTES, free=BYTES)
def test_what_is_freed_is_enough_and_never_more_than_there_is(
    used: int, reserved: int, free: int
) -> None:
    freed = MARKS.bytes_to_free(used, reserved, free)
    assert 0 <= freed <= used
    left = used - freed
    assert left == 0 or left + reserved <= MARKS.high_bytes
    assert left == 0 or free + freed >= MARKS.floor_bytes


@given(size=BYTES, used=BYTES, reserved=BYTES, free=BYTES)
def test_what_is_admitted_overshoots_neither_the_capacity_nor_the_floor(
    size: int, used: int, reserved: int, free: int
) -> None:
    admitted = MARKS.admits(size, used, reserved, free)
    fits = used + reserved + size <= 100 and free - reserved - size >= 10
    assert admitted is fits


def test_room_that_is_reserved_is_not_admitted_twice() -> None:
    assert MARKS.admits(50, 0, 50, AMPLE)
    assert not MARKS.admits(50, 0, 51, AMPLE)


@pytest.mark.parametrize(
    ("low", "high", "capacity", "floor"),
    [(0, 95, 100, 0), (96, 95, 100, 0), (80, 101, 100, 0), (80, 95, 100, -1)],
)
def test_marks_that_cannot_work_are_refused(low: int, high: int, capacity: int, floor: int) -> None:
    with pytest.raises(ConfigError):
        Watermarks(low, high, capacity, floor)
