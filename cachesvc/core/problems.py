"""What keeps the daemon from being ready, by part, and who is told of a change?

Pure bookkeeping, for the event loop only. The parts are a closed set of short names;
the texts hold no id, no key and no path of a caller.
"""

from __future__ import annotations

from collections.abc import Callable


class Problems:
    """Ready = no part has a problem. /readyz, /health, the page and gRPC's health show this."""

    def __init__(self) -> None:
        self._by_part: dict[str, str] = {}
        self._watchers: list[Callable[[], None]] = []

    def current(self) -> dict[str, str]:
        """Return the problem of each part that has one; empty = ready."""
        return dict(self._by_part)

    def set(self, part: str, text: str) -> None:
        """Record that `part` keeps the daemon from being ready. A repeated call has no effect."""
        if self._by_part.get(part) != text:
            self._by_part[part] = text
            self._tell()

    def clear(self, part: str) -> None:
        """Record that `part` is well again. A repeated call has no effect."""
        if self._by_part.pop(part, None) is not None:
            self._tell()

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call `on_change` after each change, until the returned function is called."""
        self._watchers.append(on_change)
        return lambda: self._watchers.remove(on_change)

    def _tell(self) -> None:
        for watcher in tuple(self._watchers):
            watcher()
