"""What time is it? An operation reads both clocks once.

All times are integers in nanoseconds.
"""

from __future__ import annotations

import time
from typing import NamedTuple

NS_PER_S = 1_000_000_000
# In 2262: the largest time that a column of the catalog holds.
MAX_WALL_NS = (1 << 63) - 1
# If the gap between the catalog's last write and a start is longer, a wrong clock is as likely
# as a host that was off.
MAX_PLAUSIBLE_GAP_NS = 24 * 3600 * NS_PER_S
# NTP corrects a smaller error by slowing or speeding the clock, and a larger one by setting it.
MAX_SLEW_NS = NS_PER_S
# A source is read less than this before its Put: preprocessing takes seconds.
READ_BEFORE_PUT_NS = 60 * NS_PER_S


class Now(NamedTuple):
    """`wall_ns` is the host's clock and may step; compare it with times from outside.

    `steady_ns` is the wall clock at the daemon's start plus the time since then,
    suspend included. It never steps while the daemon runs, and can be compared with
    times from before a restart. Ages and expiry use it.
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
    """A wall-clock estimate that can lag but never runs ahead; it says which old records to drop.

    It ignores a clock that jumps ahead, at boot or later, because it counts elapsed time from a
    moment known to be past. It does not count the time for which the host was off, and lags by
    that time until the next start.
    """

    def __init__(self, past_ns: int) -> None:
        """`past_ns` (wall) is a moment before this start, 0 if none is known."""
        self._past_ns = past_ns
        self._since_ns: int | None = None

    def at(self, now: Now) -> int:
        if self._since_ns is None:
            self._since_ns = now.steady_ns
        # Without a known past, no record is older than this start.
        past_ns = self._past_ns or self._since_ns
        return min(now.wall_ns, now.steady_ns, past_ns + now.steady_ns - self._since_ns)


class AgeLimit:
    """Says which expired entries may be dropped by their age alone.

    If a start is more than a day away from the catalog's last write, the clock is wrong, or was
    wrong before the start, or the host was off; the daemon cannot tell which. It then drops
    nothing by age until it has run for as long as expired entries stay, a day at least.
    """

    def __init__(self, last_write: Now) -> None:
        """`last_write` is the time of the catalog's last write before this start, 0 if none."""
        self._last_write = last_write
        self._start_ns: int | None = None

    def expired_before_ns(self, now: Now, keep_ns: int) -> int:
        """Return the steady time: entries that expired by then may be dropped now.

        `keep_ns` is how long an expired entry stays.
        """
        if self._start_ns is None:
            self._start_ns = now.steady_ns
        is_early = now.steady_ns - self._start_ns < max(keep_ns, MAX_PLAUSIBLE_GAP_NS)
        if is_early and self._is_astray(self._start_ns):
            return 0
        return now.steady_ns - keep_ns

    def _is_astray(self, start_ns: int) -> bool:
        gaps_ns = [abs(start_ns - written_ns) for written_ns in self._last_write]
        return any(self._last_write) and max(gaps_ns) > MAX_PLAUSIBLE_GAP_NS


class ClockWatch:
    """Notices that the host's clock was set, and finds times that were read before that.

    the source is read at 12:00 | the clock goes back to 11:00 | invalidated at 11:01
    Put with as_of 12:00: the source looks newer than the change, but was read before it
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        # The wall time before the clock went back, and until when (steady) it matters.
        self._shown_ns = 0
        self._matters_until_ns = 0

    def begin(self, now: Now, last_write_ns: int) -> None:
        """Start watching. `last_write_ns` (wall) is the catalog's last write, 0 if none."""
        self._offset_ns = now.wall_ns - now.steady_ns
        if now.wall_ns + MAX_SLEW_NS < last_write_ns:
            self._went_back(last_write_ns, now)

    def step_ns(self, now: Now) -> int:
        """Return by how much the clock was set since the last look, 0 if it was not."""
        offset_ns = now.wall_ns - now.steady_ns
        step_ns = 0 if self._offset_ns is None else offset_ns - self._offset_ns
        if abs(step_ns) <= MAX_SLEW_NS:
            return 0
        self._offset_ns = offset_ns
        if step_ns < 0:
            self._went_back(now.wall_ns - step_ns, now)
        return step_ns

    def _went_back(self, shown_ns: int, now: Now) -> None:
        self._shown_ns = shown_ns
        self._matters_until_ns = now.steady_ns + READ_BEFORE_PUT_NS

    def is_from_before(self, moment_ns: int, now: Now) -> bool:
        """Return whether a source read at `moment_ns` may be from before the clock went back."""
        if now.steady_ns >= self._matters_until_ns:
            return False
        return abs(moment_ns - self._shown_ns) <= READ_BEFORE_PUT_NS
