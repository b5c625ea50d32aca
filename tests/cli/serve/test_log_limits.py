"""Is a warning that repeats counted instead of written, and is nothing else left out?"""

from __future__ import annotations

import logging

import pytest
from structlog import DropEvent
from structlog.typing import EventDict

from cachesvc.cli.serve.log_limits import LINES_IN_A_PERIOD, PERIOD_S, LimitLibraries, LimitWarnings


class At:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def at() -> At:
    return At()


def written(limit: LimitWarnings, method: str, **line: object) -> EventDict | None:
    try:
        return limit(None, method, dict(line))
    except DropEvent:
        return None


def test_the_first_lines_are_written_and_the_next_period_says_how_many_were_not(at: At) -> None:
    limit = LimitWarnings(at)
    lines = [written(limit, "warning", event="disk_full") for _ in range(LINES_IN_A_PERIOD + 7)]
    assert [line is not None for line in lines] == [True] * LINES_IN_A_PERIOD + [False] * 7

    at.now += PERIOD_S
    assert written(limit, "warning", event="disk_full") == {"event": "disk_full", "left_out": 7}
    assert written(limit, "warning", event="disk_full") == {"event": "disk_full"}


def test_one_event_does_not_silence_another(at: At) -> None:
    limit = LimitWarnings(at)
    for _ in range(2 * LINES_IN_A_PERIOD):
        written(limit, "error", event="disk_full")

    assert written(limit, "warning", event="origin_down") == {"event": "origin_down"}


@pytest.mark.parametrize(
    ("method", "line"),
    [("info", {"event": "filled"}), ("warning", {"event": "purged", "logger": "audit"})],
)
def test_what_is_no_warning_and_the_audit_log_are_never_cut(
    at: At, method: str, line: dict[str, object]
) -> None:
    limit = LimitWarnings(at)

    assert all(written(limit, method, **line) for _ in range(5 * LINES_IN_A_PERIOD))


def test_a_library_is_limited_by_place_whatever_its_text(at: At) -> None:
    limit = LimitLibraries(at)

    def says(text: str, line: int) -> bool:
        record = logging.LogRecord("lib", logging.WARNING, "lib.py", line, text, None, None)
        return limit.filter(record)

    said = [says(f"text {number}", line=7) for number in range(2 * LINES_IN_A_PERIOD)]
    assert said == [True] * LINES_IN_A_PERIOD + [False] * LINES_IN_A_PERIOD
    assert says("text", line=8)
