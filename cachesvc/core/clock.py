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
