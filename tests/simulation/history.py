"""What happened to the cache, as its callers and its origin saw it, in one total order.

A moment is a number that grows with every event. All events run on one thread, so a smaller
number is an earlier event. No clocks are compared.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope

FOREVER = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The moment at which an entry's objects were read. It identifies the entry.

    A fill's source is its first read at the origin, `is_absent` if there was no object. A Put's
    source is its caller's read of the photo, `named` if the call named that time (`as_of`).
    `changed_ns` is the origin's time of the object, for a Put the time that the host's clock
    showed when the photo was read; `true_ns` is then the true time of that read.
    """

    moment: int
    key: EntryKey
    owner: str
    changed_ns: int = 0
    true_ns: int = 0
    is_absent: bool = False
    is_put: bool = False
    named: bool = False


@dataclass(slots=True)
class Call:
    """One call, from its start to its answer. `ended` FOREVER = there is no answer.

    `is_done`: the answer was OK; without it, a change may have happened or not. `source` is the
    entry that a Get was served or a Put brought; None for an Invalidate and a Get that failed.
    `found_absent`: a Get was answered NOT_FOUND. `is_kept`: the entry that a Get was served was
    published to a tier. `is_stale`: that entry had expired, and the origin could not be asked.
    `shown_ns` is the later of what the host's clock showed at the call's start and at its answer.
    `was_held`: a Get was answered with the origin's error, although L2 held one and the same
    entry for it from its start to its end.
    """

    kind: str
    began: int
    key: EntryKey | None = None
    owner: str = ""
    scope: Scope | None = None
    needed_ns: int = 0
    ended: int = FOREVER
    is_done: bool = False
    source: Source | None = None
    found_absent: bool = False
    is_kept: bool = True
    shown_ns: int = FOREVER
    is_stale: bool = False
    was_held: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two reads of one object at the origin, the second begun before the first had ended."""

    key: EntryKey
    owner: str
    first: int
    second: int


@dataclass(slots=True)
class History:
    """Calls and sources of one run."""

    calls: list[Call] = field(default_factory=list)
    sources: dict[int, Source] = field(default_factory=dict)
    overlaps: list[Overlap] = field(default_factory=list)
    _moments: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def moment(self) -> int:
        return next(self._moments)

    def add_source(self, key: EntryKey, owner: str, **more: int | bool) -> Source:
        source = Source(self.moment(), key, owner, **more)  # type: ignore[arg-type]
        self.sources[source.moment] = source
        return source

    def arrived(self, source: Source, wall_ns: int) -> Source:
        """Return the source of a Put that arrives at `wall_ns`; it counts as read by then."""
        if source.changed_ns > wall_ns:
            source = self.sources[source.moment] = replace(source, changed_ns=wall_ns)
        return source

    def begin(self, kind: str, key: EntryKey | None = None, **more: object) -> Call:
        call = Call(kind, self.moment(), key, **more)  # type: ignore[arg-type]
        self.calls.append(call)
        return call

    def crash(self) -> None:
        """End all calls that are under way; whether they took effect is unknown."""
        moment = self.moment()
        for call in self.calls:
            if call.ended == FOREVER:
                call.ended = moment
