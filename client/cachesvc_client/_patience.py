"""Decides how long a call may go on, and whether to try again after a failure.

Pure: callers pass times in seconds of a monotonic clock. There are two limits: `timeout_s` bounds
the whole call with a long fill; `wait_s` bounds only the time that a daemon may be away.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachesvc_client._options import LOOK_S
from cachesvc_client.errors import CacheServiceError, is_away

# A daemon that stops refuses calls at once: without a pause a client would spin.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.32
# Callers that wait look every second. Two failures further apart may belong to two outages.
ONE_OUTAGE_S = 5.0


class Outage:
    """What all calls of a client know together: since when has no daemon answered?

    The calls of the first `wait_s` wait for a restart. Then the outage is known: a call fails at
    once, except for one call at a time that looks for a daemon, until one look has found it.

    Safe for threads without a lock: a schedule of two costs one look more.
    """

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        self._since: float | None = None
        self._seen = 0.0
        self._probe_ends = 0.0

    @property
    def is_known(self) -> bool:
        """Return whether calls should fail at once. Never with `wait_s` 0: all do anyway."""
        return self._since is not None and self._seen - self._since >= self.wait_s > 0

    def observed(self, now: float) -> float:
        """Note that no daemon answered; return since when none has."""
        since = self._since
        if since is None or (now - self._seen > ONE_OUTAGE_S and not self.is_known):
            since = self._since = now
        self._seen = now
        return since

    def end(self) -> None:
        """Note that a daemon answered."""
        self._since = None

    def may_probe(self, now: float) -> bool:
        """Return whether this call should look for a daemon; if so, no other call does.

        The right ends by itself: an exception may hit a caller before its `finally`.
        """
        if now < self._probe_ends:
            return False
        self._probe_ends = now + LOOK_S
        return True

    def end_probe(self) -> None:
        self._probe_ends = 0.0


@dataclass
class Patience:
    """One call's budget. `wait_s` counts from the first failure of all the client's calls."""

    ends_at: float
    outage: Outage
    _away_until: float | None = None
    _next_pause_s: float = FIRST_PAUSE_S

    def time_left(self, now: float) -> float:
        """Return the seconds that an attempt may take; never negative."""
        return max(0.0, self.ends_at - now)

    def may_retry(self, error: CacheServiceError, now: float) -> bool:
        """Return whether to try again after `error`: every call is idempotent."""
        if not is_away(error):
            return False
        return self.may_wait(now)

    def may_wait(self, now: float) -> bool:
        """Note that no daemon answered; return whether to wait for it."""
        since = self.outage.observed(now)
        if self._away_until is None:
            self._away_until = min(since + self.outage.wait_s, self.ends_at)
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
