"""Decides how long a call may go on, and whether to try again after a failure.

Pure: callers pass times in seconds of a monotonic clock. There are two limits: `timeout_s` bounds
the whole call with a long fill; `wait_s` bounds only the time that a daemon may be away.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachesvc_client.errors import CacheServiceError, is_away

# A daemon that stops refuses calls at once: without a pause a client would spin.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.32


@dataclass
class Patience:
    """One call's budget. `wait_s` counts from the first attempt that found no daemon."""

    ends_at: float
    wait_s: float
    _away_until: float | None = None
    _next_pause_s: float = FIRST_PAUSE_S

    def time_left(self, now: float) -> float:
        """Return the seconds that an attempt may take; never negative."""
        return max(0.0, self.ends_at - now)

    def may_retry(self, error: CacheServiceError, now: float) -> bool:
        """Return whether to try again after `error`: every call is idempotent."""
        if not is_away(error):
            return False
        if self._away_until is None:
            self._away_until = min(now + self.wait_s, self.ends_at)
        return now < self._away_until

    def wait_left(self, now: float) -> float:
        """Return the seconds for which the daemon may still be away; never negative."""
        assert self._away_until is not None
        return max(0.0, self._away_until - now)

    def next_pause(self, now: float) -> float:
        """Return the seconds to pause before the next attempt: doubling, within the wait."""
        pause_s = min(self._next_pause_s, self.wait_left(now))
        self._next_pause_s = min(2 * self._next_pause_s, LONGEST_PAUSE_S)
        return pause_s
