"""Which invalidations has a full disk kept out of the catalog?

Their files are unlinked, so nothing that they cover is served. But the time of the change is known
to this process alone until upkeep records it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from cachesvc.core.scopes import Change, Scope


class UnrecordedChanges:
    """One change for each scope. Belongs to the event loop."""

    def __init__(self) -> None:
        self._changes: dict[Scope, Change] = {}

    def __len__(self) -> int:
        return len(self._changes)

    def __iter__(self) -> Iterator[Change]:
        """Iterate over the changes of now; later ones may be remembered meanwhile."""
        return iter(list(self._changes.values()))

    def remember(self, change: Change) -> None:
        earlier = self._changes.get(change.scope, change)
        self._changes[change.scope] = change.and_of(earlier)

    def forget(self, recorded: Change) -> None:
        """Forget a change that the catalog has, unless a later one of its scope came meanwhile.

        upkeep: records t1 | invalidate: refused, remembers t2 | upkeep: t2 is still to do
        """
        if self._changes[recorded.scope] == recorded:
            del self._changes[recorded.scope]

    def last_ns(self, scopes: Iterable[Scope]) -> int:
        """Return the latest change of any of `scopes`, wall time, 0 if none."""
        known = (self._changes.get(scope) for scope in scopes)
        return max((change.changed_ns for change in known if change), default=0)

    def lower(self, now_ns: int) -> None:
        """Lower the times of changes later than `now_ns` (wall) to it."""
        for scope, change in self._changes.items():
            if change.changed_ns > now_ns:
                self._changes[scope] = replace(change, changed_ns=now_ns)
