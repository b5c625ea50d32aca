"""What is known of one stored entry, whichever tier holds its bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from cachesvc.core import ttl
from cachesvc.core.clock import MAX_WALL_NS, NS_PER_S
from cachesvc.core.keys import EntryKey
from cachesvc.core.origin import OriginStamp

FORMAT_VERSION = 1
# SQLite refuses a larger number, and the whole batch would fail.
MAX_ACCESSES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class EntryMeta:
    """One immutable generation of an entry.

    Times are nanoseconds: `begun_ns` (wall) is when its fill began or its Put's source
    was read; `origin_ns` (wall) is the oldest Last-Modified of its members, or a Put's
    `as_of`; `confirmed_ns` (steady) is when it was last known to equal the origin's objects.
    `as_of_ns` (wall) is when a Put's source was read, 0 for a fill. `checksum` is
    xxh3-64 of the whole blob. `explicit_ttl_s` is a Put's `ttl`.
    """

    key: EntryKey
    owner: str
    generation: int
    size_bytes: int
    checksum: int
    stamps: tuple[OriginStamp, ...]
    begun_ns: int
    origin_ns: int
    confirmed_ns: int
    base_ttl_s: float
    explicit_ttl_s: float | None
    kind_version: str
    as_of_ns: int = 0

    def expires_ns(self, accesses: int) -> int:
        """Return the steady time from which the entry is a miss."""
        return ttl.expires_ns(
            confirmed_ns=self.confirmed_ns,
            base_s=self.base_ttl_s,
            explicit_s=self.explicit_ttl_s,
            accesses=accesses,
            generation=self.generation,
        )

    def lowered(self, now_ns: int) -> EntryMeta:
        """Return the entry with `as_of_ns` no later than `now_ns` (wall).

        The age of a source read in the future is unknown, so the entry counts as older than
        any `origin_after`.
        """
        if self.as_of_ns <= now_ns:
            return self
        return replace(self, as_of_ns=now_ns, origin_ns=0)

    @property
    def etag(self) -> str:
        """Opaque; differs when any member does."""
        if not self.stamps:
            return f"put-{self.generation}"
        parts = "\n".join(f"{stamp.object_key} {stamp.etag}" for stamp in self.stamps)
        return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def more_accesses(known: int, count: int) -> int:
    """Return `known` plus `count`, at most MAX_ACCESSES: `count` may be a worker's report."""
    return min(known + count, MAX_ACCESSES)


def oldest_ns(stamps: tuple[OriginStamp, ...]) -> int:
    """Return the oldest Last-Modified, in wall nanoseconds.

    A file may have any time: a time before 1970 becomes 0, a time after 2262 MAX_WALL_NS.
    """
    oldest_s = min(stamp.last_modified_s for stamp in stamps)
    return int(min(max(0.0, oldest_s) * NS_PER_S, MAX_WALL_NS))


class GenerationSource:
    """Hands out numbers that are never used twice, across restarts and a lost catalog.

    A number is the wall time in nanoseconds, raised above the last number. A lost catalog
    does not repeat numbers; a clock that steps back does not either, unless the catalog is
    lost at the same time.
    """

    def __init__(self, last: int) -> None:
        self._last = last

    def next(self, wall_ns: int) -> int:
        self._last = max(wall_ns, self._last + 1)
        return self._last


@dataclass(frozen=True, slots=True)
class Row:
    """An entry of L2, as its catalog row says. Times are steady.

    `stored_expires_ns` is the catalog's value, 0 if the row was not read from the catalog.
    The sweeper and a look-up both use it, even if the TTL rule has changed since.
    """

    meta: EntryMeta
    accesses: int
    last_access_ns: int
    stored_expires_ns: int = field(default=0, compare=False)

    @property
    def expires_ns(self) -> int:
        return self.stored_expires_ns or self.meta.expires_ns(self.accesses)
