"""What time is it: one reading for an operation, with the two clocks it needs.

All times are integers in nanoseconds.
"""

from __future__ import annotations

import time
from typing import NamedTuple

NS_PER_S = 1_000_000_000


class Now(NamedTuple):
    """`wall_ns` is the host's clock and may step; compare it with times from outside.

    `steady_ns` is the wall clock at the daemon's start plus the time since then,
    suspend included: it never steps while the daemon runs, and means something
    after a restart. Ages and expiry use it.
    """

    wall_ns: int
    steady_ns: int


class Clock:
    """The system's clocks. Tests hand in another object with `read`."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def read(self) -> Now:
        boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return Now(time.time_ns(), boot_ns + self._offset_ns)


class ProvenTime:
    """A wall time that may be late and is never early: for what must not be forgotten too soon.

    A host's clock may be set a year ahead for some seconds while the daemon runs, which
    `steady_ns` does not follow, or be a year ahead when the host boots, which it does. So time
    is counted from a moment that is surely past, by what has passed since. The time for which
    the host was off is not in it: until the next start it is behind by that.
    """

    def __init__(self, past_ns: int) -> None:
        """`past_ns` (wall) is a moment before this start, 0 if none is known."""
        self._past_ns = past_ns
        self._since_ns: int | None = None

    def at(self, now: Now) -> int:
        if self._since_ns is None:
            self._since_ns = now.steady_ns
        # Without a known past there is nothing older than this start either.
        past_ns = self._past_ns or self._since_ns
        return min(now.wall_ns, now.steady_ns, past_ns + now.steady_ns - self._since_ns)
