"""What time is it: one reading for an operation, with the two clocks it needs.

All times are integers in nanoseconds.
"""

from __future__ import annotations

import time
from typing import NamedTuple

NS_PER_S = 1_000_000_000
# In 2262: what the catalog's columns hold.
MAX_WALL_NS = (1 << 63) - 1
# A longer gap between the catalog's last write and a start is a wrong clock as likely as a
# host that was off.
MAX_PLAUSIBLE_GAP_NS = 24 * 3600 * NS_PER_S
# NTP corrects less than this by running slower or faster, and sets the clock for more.
MAX_SLEW_NS = NS_PER_S
# How long before its Put a source is read: seconds, with the preprocessing in between.
READ_BEFORE_PUT_NS = 60 * NS_PER_S


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
    """A wall-clock estimate that can lag but never runs ahead: what is old may be dropped by it.

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


class AgeLimit:
    """Says what is old enough to be dropped unseen. At first nothing is, if the start is astray.

    A start that is more than a day away from the catalog's last write has a wrong clock, or
    follows one, or the host was off: nobody knows which. Then nothing is dropped by its age
    until a daemon has run for as long as expired entries stay, a day at least.
    """

    def __init__(self, last_write: Now) -> None:
        """`last_write` is the catalog's in the life before, all 0 if there was none."""
        self._last_write = last_write
        self._start_ns: int | None = None

    def expired_before_ns(self, now: Now, keep_ns: int) -> int:
        """Return the steady time of the expiry up to which entries may be dropped now.

        `keep_ns` is for how long an expired entry stays.
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
    """Notices that the host's clock was set, and judges moments that were read before that.

    the source is read at 12:00 | the clock goes back to 11:00 | invalidated at 11:01
    Put with as_of 12:00: later than the change by the clock, and read before it
    """

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        # What the clock showed before it went back, and until when (steady) that matters.
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
        """Return whether a source that is said to be read then may be from before it went back."""
        if now.steady_ns >= self._matters_until_ns:
            return False
        return abs(moment_ns - self._shown_ns) <= READ_BEFORE_PUT_NS
