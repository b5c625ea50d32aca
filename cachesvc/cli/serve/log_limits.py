"""Limits repeated warnings.

A dead origin or a full disk causes the same warning at every call. The first lines of an event in
each period are written and the others are counted; the first line of the next period says how many
were left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from structlog import DropEvent
from structlog.typing import EventDict, WrappedLogger

LINES_IN_A_PERIOD = 5
PERIOD_S = 60.0
LIMITED = frozenset({"warning", "error"})
# Lines on invalidations are never left out.
_NEVER = "audit"


@dataclass(slots=True)
class _Period:
    started: float
    lines: int = 0
    left_out: int = 0


class Repeats:
    """Counts lines by event; events are a closed set of names, so the counts stay few."""

    def __init__(self) -> None:
        self._periods: dict[str, _Period] = {}

    def left_out_before(self, event: str, now: float) -> int | None:
        """Return how many lines were left out before this line; None = leave out this line."""
        period = self._periods.get(event)
        if period is None or now - period.started >= PERIOD_S:
            left_out = period.left_out if period else 0
            self._periods[event] = _Period(now, lines=1)
            return left_out
        if period.lines >= LINES_IN_A_PERIOD:
            period.left_out += 1
            return None
        period.lines += 1
        return 0


class LimitWarnings:
    """structlog's processor for our own lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeats = Repeats()
        self._clock = clock

    def __call__(self, _: WrappedLogger, method: str, line: EventDict) -> EventDict:
        if method not in LIMITED or line.get("logger") == _NEVER:
            return line
        left_out = self._repeats.left_out_before(str(line.get("event")), self._clock())
        if left_out is None:
            raise DropEvent
        if left_out:
            line["left_out"] = left_out
        return line


class LimitLibraries(logging.Filter):
    """The same for the libraries' lines, by place in the code: texts have no limit in number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._repeats = Repeats()
        self._clock = clock

    def filter(self, record: logging.LogRecord) -> bool:
        place = f"{record.name}:{record.lineno}"
        return self._repeats.left_out_before(place, self._clock()) is not None
