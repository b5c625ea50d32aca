"""Are sizes and times read as people write them, and shown so that they can be read again?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core import units

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("1_048_576", 1 << 20),
        ("2GiB", 2 * GIB),
        ("2 GiB", 2 * GIB),
        (" 2gib ", 2 * GIB),
        ("2Gi", 2 * GIB),
        ("512Mi", 512 << 20),
        ("64 KiB", 64 << 10),
        ("1.5GiB", 3 * GIB // 2),
        ("2 GB", 2 * 10**9),
        ("2G", 2 * 10**9),
        ("500M", 5 * 10**8),
        ("1kB", 1000),
        ("1TiB", 1 << 40),
        ("0", 0),
        ("7 bytes", 7),
        ("7B", 7),
    ],
)
def test_a_size_is_bytes_or_a_number_with_a_unit(text: str, size: int) -> None:
    assert units.size_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "much", "1.5", "2 GiBs", "2Gx", "-1", "GiB", "1,000", "1e9", "0x10", "inf", "\u0661GiB"],
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="2GiB"):
        units.size_bytes(text)


@pytest.mark.parametrize(
    ("text", "plain_unit_s", "seconds"),
    [
        ("90", 1, 90),
        ("90s", 1, 90),
        ("0.5", 1, 0.5),
        ("500ms", 1, 0.5),
        ("15m", 1, 900),
        ("15 min", 1, 900),
        ("24h", 1, 86400),
        ("7d", 1, 7 * 86400),
        ("1h30m", 1, 5400),
        ("1h 30m", 1, 5400),
        ("1.5h", 1, 5400),
        ("24", 3600, 86400),
        ("90m", 3600, 5400),
        ("200", 0.001, 0.2),
        ("0", 1, 0),
        ("-5", 1, -5),
    ],
)
def test_a_time_is_a_number_with_a_unit_or_of_the_names_unit(
    text: str, plain_unit_s: float, seconds: float
) -> None:
    assert units.time_s(text, plain_unit_s) == seconds


@pytest.mark.parametrize("text", ["", "soon", "1h30", "24H", "-5s", "1 fortnight", "h", "inf"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        units.time_s(text)


@given(st.integers(0, 1 << 62))
def test_a_size_that_is_shown_is_read_as_the_same(size: int) -> None:
    assert units.size_bytes(units.size_text(size)) == size


@given(st.integers(0, 366 * 86400 * 1000))
def test_a_time_that_is_shown_is_read_as_the_same(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert units.time_s(units.time_text(seconds)) == pytest.approx(seconds, abs=1e-4, rel=1e-6)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (GIB, "1 GiB"),
        (50 * GIB, "50 GiB"),
        (3 * GIB // 2, "1.5 GiB"),
        (2 * 10**9, "2 GB"),
        (GIB + 1, f"{GIB + 1} bytes"),
        (0, "0 bytes"),
    ],
)
def test_a_size_is_shown_in_the_unit_it_was_likely_written_in(size: int, text: str) -> None:
    assert units.size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(86400, "1d"), (5400, "1h30m"), (0.5, "500ms"), (0, "0s"), (90, "1m30s"), (2.0005, "2.0005s")],
)
def test_a_time_is_shown_in_units(seconds: float, text: str) -> None:
    assert units.time_text(seconds) == text
