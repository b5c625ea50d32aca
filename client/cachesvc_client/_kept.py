"""The entries a worker keeps open, so that their next Get needs no call.

The file's link count is the validity token: the daemon unlinks the file before it
answers any invalidation, and a file never gets its name back. Why that is enough:
docs/local-delivery.md.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import NamedTuple

from cachesvc_client._blob import Layout
from cachesvc_client._control import ControlPage
from cachesvc_client._descriptors import Owner
from cachesvc_client._opened import Opened
from cachesvc_client._reading import info_of
from cachesvc_client.answers import EntryInfo, Tier
from cachesvc_proto.v1 import cache_pb2

# A process has few descriptors (1,024 by default), and each kept entry needs one.
DEFAULT_MAX_ENTRIES = 256
DEFAULT_MAX_BYTES = 2 << 30
_NEVER_MET_NS = 1 << 63


class LocalHits(NamedTuple):
    """Hits of one entry since the last report."""

    namespace: str
    id: str
    generation: int
    hits: int


class Wanted(NamedTuple):
    """What a Get asks of a kept entry. `needed_ns` is the Get's `origin_after` (wall), 0 = any."""

    key: tuple[str, str]
    needed_ns: int
    kind_version: str


def needed_ns(origin_after: datetime | None) -> int:
    """Return `origin_after` in wall nanoseconds; a moment in the future counts as now."""
    if origin_after is None:
        return 0
    if origin_after.utcoffset() is None:
        return _NEVER_MET_NS  # the call will be refused, with a clear error
    since = origin_after - datetime(1970, 1, 1, tzinfo=timezone.utc)
    asked_ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    return min(asked_ns, time.time_ns())


@dataclass
class Kept:
    """One entry's open file. `file` closes its descriptor when it is dropped, whatever happens.

    `expires_ns` is CLOCK_BOOTTIME; `origin_ns` is the origin's time and `newest_needed_ns` the
    latest `origin_after` that the entry meets (both wall). `shared` is the mapping that all its
    Gets share, if callers asked for that.
    """

    file: Owner
    info: EntryInfo | cache_pb2.EntryInfo
    layout: Layout
    expires_ns: int
    origin_ns: int
    newest_needed_ns: int
    shared: memoryview | None = None
    unreported: int = 0
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = self.file.fileno()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # other code has closed it
            self.file.close()


class KeptEntries:
    """Open files of one daemon's life, bounded in number and bytes.

    Safe for use from many threads: the lock prevents a descriptor from being closed, and its number
    from being used again, between `fstat` and the mapping.
    """

    def __init__(
        self, control: ControlPage, max_entries: int, max_bytes: int, *, share_mappings: bool
    ) -> None:
        self._control = control
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._share_mappings = share_mappings
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._left: list[LocalHits] = []  # hits of entries that were dropped
        # A signal's handler may call this client in the middle of a hit.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        # Counted anew: a handler's exception could come between a drop and its subtraction.
        return sum(kept.info.size_bytes for kept in self._kept.values())

    def hit(self, key: tuple[str, str], needed_ns: int, kind_version: str) -> Opened | None:
        """Return the entry if it may be served now without a call: 15 us for any size."""
        if key not in self._kept:
            return None
        with self._lock:
            opened = self._open(key, needed_ns, kind_version)
            if opened is not None:
                self._count(key)
        return opened

    def hit_all(self, wanted: Iterable[Wanted]) -> tuple[Opened, ...] | None:
        """Return the entries if all of them may be served now without a call.

        Otherwise none is a hit: the caller asks the daemon for all, and the daemon counts.
        """
        opened = {}
        with self._lock:
            for key, needed_ns, kind_version in wanted:
                entry = self._open(key, needed_ns, kind_version)
                if entry is None:
                    return None
                opened[key] = entry
            for key in opened:
                self._count(key)
        return tuple(opened.values())

    def keep(self, key: tuple[str, str], kept: Kept) -> None:
        """Take over an open file; it replaces the kept entry of its key."""
        with self._lock:
            if key in self._kept:
                self._drop(key)
            if kept.info.size_bytes > self._max_bytes or self._max_entries < 1:
                kept.close()
                return
            if self._share_mappings:
                with contextlib.suppress(OSError):  # then each Get maps or is inline
                    kept.shared = private_mapping(kept.fd, kept.info.size_bytes)
            self._kept[key] = kept
            while len(self._kept) > self._max_entries or self.size_bytes > self._max_bytes:
                self._drop(next(iter(self._kept)))

    def is_current(self, key: tuple[str, str], generation: int) -> bool | None:
        """Return whether that generation is still valid; None if only the daemon can say."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept.info.generation != generation:
                return None
            if not self._control.is_serving():
                return None
            if os.fstat(kept.fd).st_nlink == 0:
                # Invalidated, replaced or only evicted: only the daemon knows.
                return None
            return time.clock_gettime_ns(time.CLOCK_BOOTTIME) < kept.expires_ns or None

    def sweep(self) -> None:
        """Drop entries that were unlinked or have expired, so that their memory can be freed."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        with self._lock:
            for key, kept in list(self._kept.items()):
                if now_ns >= kept.expires_ns or os.fstat(kept.fd).st_nlink == 0:
                    self._drop(key)

    def take_hits(self) -> list[LocalHits]:
        """Return the hits since the last `take_hits`, and count from zero again."""
        with self._lock:
            hits, self._left = self._left, []
            for key, kept in self._kept.items():
                if kept.unreported:
                    hits.append(_hits_of(key, kept))
                    kept.unreported = 0
        return hits

    def close(self) -> None:
        """Drop all entries. Bytes that callers hold stay valid."""
        with self._lock:
            for key in list(self._kept):
                self._drop(key)

    def abandon(self) -> None:
        """As `close`, without the lock: in a forked child no thread may ever release it."""
        kept, self._kept = self._kept, OrderedDict()
        self._left = []
        for entry in kept.values():
            entry.close()

    def _open(self, key: tuple[str, str], needed_ns: int, kind_version: str) -> Opened | None:
        """Map the entry if it may be served now. Does not count the hit."""
        kept = self._kept.get(key)
        if kept is None or not self._control.is_serving():
            return None
        if (
            os.fstat(kept.fd).st_nlink == 0
            or time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= kept.expires_ns
        ):
            self._drop(key)
            return None
        # An origin time later than now proves nothing: a clock was ahead. Only the daemon knows
        # when it read the entry.
        if needed_ns and (needed_ns > kept.newest_needed_ns or kept.origin_ns > time.time_ns()):
            return None
        if kind_version and kind_version != kept.info.kind_version:
            return None
        try:
            blob = kept.shared or private_mapping(kept.fd, kept.info.size_bytes)
        except OSError:
            return None  # out of descriptors or mappings: an inline answer needs neither
        if not isinstance(kept.info, EntryInfo):
            # The first answer's tier is not the tier of this hit.
            kept.info = replace(info_of(kept.info), tier=Tier.MEMORY)
        return Opened(kept.info, kept.layout, blob)

    def _count(self, key: tuple[str, str]) -> None:
        self._kept[key].unreported += 1
        self._kept.move_to_end(key)

    def _drop(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return  # a signal's handler that called this client has dropped it
        if kept.unreported:
            self._left.append(_hits_of(key, kept))
        kept.close()


def _hits_of(key: tuple[str, str], kept: Kept) -> LocalHits:
    return LocalHits(*key, kept.info.generation, kept.unreported)


def private_mapping(fd: int, size_bytes: int) -> memoryview:
    """Map copy-on-write: the caller may write, and no other process sees it."""
    return memoryview(mmap.mmap(fd, size_bytes, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE))
