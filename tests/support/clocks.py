"""A clock that moves only when a test says so."""

from __future__ import annotations

from cachesvc.core.clock import NS_PER_S, Now

# 2026-01-01, in the middle of a second: no code may rely on whole seconds.
START_NS = 1_767_225_600_123_456_789


class ManualClock:
    """Stands in for core.clock.Clock. Both clocks start together."""

    def __init__(self, start_ns: int = START_NS) -> None:
        self._now = Now(start_ns, start_ns)

    def read(self) -> Now:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks move."""
        passed_ns = int(seconds * NS_PER_S)
        self._now = Now(self._now.wall_ns + passed_ns, self._now.steady_ns + passed_ns)

    def step_wall(self, seconds: float) -> None:
        """Set the host's clock: only the wall clock moves, forward or back."""
        self._now = Now(self._now.wall_ns + int(seconds * NS_PER_S), self._now.steady_ns)

    def restart(self) -> None:
        """Forget the difference of both clocks, as a daemon that starts after the clock was set."""
        self._now = Now(self._now.wall_ns, self._now.wall_ns)
