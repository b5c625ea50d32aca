"""A warm-up that the daemon has begun: iterate over its progress, wait for its end, or drop it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from cachesvc_client.answers import WarmProgress, WarmSummary, WarmTally


class WarmUp(Iterator[WarmProgress]):
    """An iterator over the progress, first the start. The warm-up goes on without its caller."""

    def __init__(self, steps: Generator[WarmProgress, None, None]) -> None:
        """Take the daemon's first message, and raise the daemon's errors."""
        self._steps = steps
        self._tally = WarmTally()
        self._first: WarmProgress | None = next(steps)
        self._tally.add(0, self._first)

    def __next__(self) -> WarmProgress:
        first, self._first = self._first, None
        if first is not None:
            return first
        progress = next(self._steps)
        self._tally.add(0, progress)
        return progress

    def wait(self) -> WarmSummary:
        """Wait for the end; return the counts and the failed keys. Raises the daemon's errors."""
        for _ in self:
            pass
        return self._tally.summary()

    def close(self) -> None:
        """Stop listening; the daemon goes on. Repeating it is harmless."""
        self._steps.close()

    def __repr__(self) -> str:
        return f"<WarmUp {self._tally.progress}>"
