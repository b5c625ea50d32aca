"""What happened to the cache, as its callers and its origin saw it, in one total order.

Moments are numbers that only grow, one for each thing that happens: everything runs on one
thread, so a smaller number was earlier. No clock is compared.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope

FOREVER = 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """A moment at which somebody read what an entry is made of, which is the entry's name.

    A fill's is its first read at the origin, `is_absent` if there was nothing. A Put's is
    when its caller read the photo; `named` if the call said so (`as_of`). `changed_ns` is the
    origin's time of the object, or what the host's clock showed when the photo was read, and
    `true_ns` when that was.
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
    """One call, from its start to its answer. `ended` FOREVER = it never came.

    `is_done`: answered with OK. Otherwise a change may or may not have happened. `source`
    is what a Get was served or a Put brought; None for an Invalidate, and for a Get that
    was told of a failure. `found_absent`: a Get was told NOT_FOUND. `is_kept`: what a Get was
    served is not only for those who waited for it. `shown_ns` is the latest that the
    host's clock showed, when the call came or was answered. `is_stale`: a Get was served an
    entry that had expired, because the origin could not be asked. `was_held`: a Get was answered
    with the origin's error, although L2 held the same entry for it from its start to its end.
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
        """Return `source` as of when its Put came: a moment in the future counts as that."""
        if source.changed_ns > wall_ns:
            source = self.sources[source.moment] = replace(source, changed_ns=wall_ns)
        return source

    def begin(self, kind: str, key: EntryKey | None = None, **more: object) -> Call:
        call = Call(kind, self.moment(), key, **more)  # type: ignore[arg-type]
        self.calls.append(call)
        return call

    def crash(self) -> None:
        """Whatever was under way has ended here, and nobody knows how."""
        moment = self.moment()
        for call in self.calls:
            if call.ended == FOREVER:
                call.ended = moment
