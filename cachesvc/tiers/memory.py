"""L1: which entries are in memory, and their files in tmpfs.

The file is the truth: it is unlinked in the same function that takes it out of
the index. Everything but `write` runs on the event loop and never blocks; `spares.py`
takes pages beforehand and gives them back afterwards.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from cachesvc.core.entry import EntryMeta, more_accesses
from cachesvc.core.errors import Overloaded
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import MemoryIndex, NamespaceLimits
from cachesvc.core.scopes import Scope
from cachesvc.core.tensors import Buffer
from cachesvc.tiers import files, first_look
from cachesvc.tiers.departures import Departures, Whose
from cachesvc.tiers.rooms import FILE_MODE, UNSHARED_MODE, Room, RoomWriter
from cachesvc.tiers.shared_files import Blob, HeapBytes, SharedFile
from cachesvc.tiers.spares import Spares

log = structlog.get_logger()
SUFFIX = ".safetensors"
# Evict at most this many times the missing bytes: while workers have all of L1 mapped, evicting
# more would give nothing back.
_MOST_TIMES = 4
_SAY_AGAIN_S = 60.0

# Called for each entry that leaves, and why.
OnLeaving = Callable[["MemoryEntry", Leaving], None]


@dataclass(slots=True)
class MemoryEntry:
    """One entry of L1. Uses change `accesses`, `last_access_ns` (steady) and `expires_ns`."""

    meta: EntryMeta
    blob: SharedFile
    accesses: int
    last_access_ns: int
    expires_ns: int

    @property
    def key(self) -> EntryKey:
        return self.meta.key

    @property
    def size_bytes(self) -> int:
        return self.meta.size_bytes

    def view(self) -> memoryview:
        return self.blob.view()

    def record_access(self, steady_ns: int, count: int) -> None:
        """Count uses; crossing a step of the adaptive TTL moves the expiry."""
        self.accesses = more_accesses(self.accesses, count)
        self.last_access_ns = steady_ns
        self.expires_ns = self.meta.expires_ns(self.accesses)


class MemoryTier:
    """L1 in a directory of its own.

    `held_bytes` counts files that left the index and are not free yet, because readers have
    them mapped or they could not be unlinked, and heap bytes that streams send. It counts
    within `max_bytes`. So do spare files, at most `spare_bytes`, but they give way to any
    entry. `on_owing` gets the reason when a file cannot be unlinked, and None when all are:
    no local hit is allowed in between. `max_files` limits L1's descriptors. Not `is_shared` =
    only the daemon may open the files, so no worker believes their link counts.

    Raises:
        ConfigError: the directory is not usable, or its filesystem is too small and
            `allow_heap` is not set.
    """

    def __init__(
        self,
        path: Path,
        limits: dict[str, NamespaceLimits],
        max_bytes: int,
        *,
        on_leaving: OnLeaving,
        gid: int | None = None,
        allow_heap: bool = False,
        spare_bytes: int = 0,
        on_owing: Callable[[str | None], None] = lambda problem: None,
        max_files: int = 1 << 20,
        is_shared: bool = True,
    ) -> None:
        self.index: MemoryIndex[MemoryEntry] = MemoryIndex(limits, max_bytes)
        self._on_leaving = on_leaving
        self._directory_fd = files.open_directory(path, mode=0o750, gid=gid)
        self._reserved_bytes = 0
        self._rooms = 0
        self._max_files = max_files
        # Bytes that streams send from the heap.
        self._sent_bytes = 0
        self._full_said_s = float("-inf")
        # Part of each name: a name in a dead daemon's answer must not lead to another file.
        self._life = os.urandom(8).hex()
        self._written = 0
        first_look.remove_leftovers(path, self._directory_fd)
        leases_work = first_look.leases_work(path, self._directory_fd)
        mode = FILE_MODE if is_shared else UNSHARED_MODE
        self.spares = Spares(self._directory_fd, spare_bytes, mode=mode, gid=gid)
        self.departures = Departures(
            self.spares, leases_work=leases_work, is_shared=is_shared, on_owing=on_owing
        )
        self._writer = RoomWriter(self._directory_fd, mode, gid, self.spares)
        if not allow_heap:
            first_look.check_room(path, self._directory_fd, max_bytes)

    # ---- lookups

    def lookup(self, key: EntryKey, steady_ns: int) -> MemoryEntry | None:
        """Return the entry if it may be served now; an expired one is removed."""
        entry = self.index.peek(key)
        if entry is not None and steady_ns >= entry.expires_ns:
            self._remove(entry, Leaving.EXPIRED)
            return None
        return entry

    def record_use(self, entry: MemoryEntry, steady_ns: int, count: int = 1) -> None:
        """Count hits: the order of eviction, accesses and the adaptive TTL."""
        entry.record_access(steady_ns, count)
        self.index.touch(entry.key)

    # ---- a new entry: reserve, write, then publish or discard

    def reserve(self, key: EntryKey, size_bytes: int) -> Room:
        """Evict until `size_bytes` fit, and reserve them; if they cannot fit, use the heap."""
        self.departures.collect()
        outside_bytes = self._reserved_bytes + self.held_bytes
        victims = self.index.plan_room(key, size_bytes, outside_bytes)
        if victims is None:
            return self.heap_room(size_bytes)
        for victim, cause in victims:
            self._remove(victim, cause)
        # Readers may still hold what was just evicted.
        if size_bytes > self.free_bytes or not self._free_descriptor():
            return self.heap_room(size_bytes)
        spare = self.spares.take(size_bytes, most_bytes=self.free_bytes)
        # A larger spare is cut to size when it is written.
        reserved_bytes = max(size_bytes, spare.size_bytes) if spare else size_bytes
        self._reserved_bytes += reserved_bytes
        self._rooms += 1
        self._written += 1
        room = Room(f"{self._life}-{self._written:x}{SUFFIX}", size_bytes, reserved_bytes)
        if spare is not None:
            room.spare.append(spare)
        room.leaving = self._make_spares_give_way()
        return room

    def _free_descriptor(self) -> bool:
        """Make sure that L1 may open one more descriptor; False if evicting frees none.

        A file that readers have keeps its descriptor, so only few evictions are tried.
        """
        while self.spares.descriptors and self.descriptors >= self._max_files:
            self.spares.drop_oldest()
        for _ in range(_MOST_TIMES):
            if self.descriptors < self._max_files or not len(self.index):
                break
            self._remove(next(iter(self.index)), Leaving.DESCRIPTORS)
        return self.descriptors < self._max_files

    @property
    def descriptors(self) -> int:
        """How many files L1 has, has reserved, or cannot close yet."""
        kept = len(self.index) + self.departures.descriptors
        return kept + self._rooms + self.spares.descriptors

    def make_room(self, room: Room) -> None:
        """Evict the least recently used entries, after tmpfs or the process had no room.

        Other users of tmpfs have taken what L1's own limits allow. Spare files go first.
        Afterwards `write` tries a last time.
        """
        room.is_last_try = True
        freed_bytes, tried_bytes = self.spares.drop_all(), 0
        for entry in list(self.index):
            if freed_bytes >= room.size_bytes or tried_bytes >= _MOST_TIMES * room.size_bytes:
                break
            held_bytes = self.held_bytes
            self._remove(entry, Leaving.TMPFS_FULL)
            tried_bytes += entry.size_bytes
            freed_bytes += entry.size_bytes - (self.held_bytes - held_bytes)
        room.leaving = self.spares.leaving()
        self._say_full()

    def _say_full(self) -> None:
        now_s = time.monotonic()
        if now_s - self._full_said_s >= _SAY_AGAIN_S:
            self._full_said_s = now_s
            log.warning(
                "l1_has_less_room_than_its_limit",
                used_bytes=self.index.used_bytes,
                max_bytes=self.index.max_bytes,
                consequence="the least recently used entries leave L1",
            )

    def room_bytes(self, filesystem_free_bytes: int) -> int:
        """Return what L1 can have now: its limit, or less if tmpfs has less left."""
        spare_bytes = self.spares.ready_bytes + self.spares.leaving_bytes
        taken_bytes = self.index.used_bytes + self._reserved_bytes + self.departures.held_bytes
        return min(self.index.max_bytes, taken_bytes + spare_bytes + filesystem_free_bytes)

    def _make_spares_give_way(self) -> tuple[Future[None], ...]:
        """Drop spares until the limit holds; return what has to end before pages are taken."""
        while self.spares.ready_bytes > self.free_bytes:
            self.spares.drop_oldest()
        if self.spares.ready_bytes + self.spares.leaving_bytes <= self.free_bytes:
            return ()
        return self.spares.leaving()

    @property
    def held_bytes(self) -> int:
        return self.departures.held_bytes + self._sent_bytes

    @contextlib.contextmanager
    def sending(self, blob: Blob) -> Iterator[None]:
        """Count a stream's bytes until it ends: its caller may read slowly.

        Heap bytes count within L1's limit. One stream from the heap is always admitted.
        Raises Overloaded, reason TOO_MANY_STREAMS.
        """
        if isinstance(blob, SharedFile):
            blob.senders += 1
            try:
                yield
            finally:
                blob.senders -= 1
            return
        size_bytes = blob.size_bytes
        if self._sent_bytes and self.held_bytes + size_bytes > self.index.max_bytes:
            raise Overloaded(
                "streams that are under way hold all of L1; retry later", reason="TOO_MANY_STREAMS"
            )
        self._sent_bytes += size_bytes
        self._keep_to_the_limit()
        try:
            yield
        finally:
            self._sent_bytes -= size_bytes

    def _keep_to_the_limit(self) -> None:
        over_bytes = self._taken_bytes - self.index.max_bytes
        tried_bytes = 0
        for entry in list(self.index):
            if self._taken_bytes <= self.index.max_bytes or tried_bytes >= _MOST_TIMES * over_bytes:
                break
            tried_bytes += entry.size_bytes
            self._remove(entry, Leaving.BYTES_LIMIT)

    @property
    def _taken_bytes(self) -> int:
        return self.index.used_bytes + self._reserved_bytes + self.held_bytes

    @property
    def owed_files(self) -> int:
        """How many files of removed entries could not be unlinked yet."""
        return self.departures.owed_files

    @property
    def free_bytes(self) -> int:
        """What L1 may still take without evicting anything. Spares give way."""
        return max(0, self.index.max_bytes - self._taken_bytes)

    def filesystem_free_bytes(self) -> int:
        """Return what tmpfs has left for all who use it. For threads: it may block."""
        return files.free_bytes(self._directory_fd)

    def has_room(self, key: EntryKey, size_bytes: int) -> bool:
        """Return whether an entry would fit without evicting anything."""
        outside_bytes = self._reserved_bytes + self.held_bytes
        return self.index.plan_room(key, size_bytes, outside_bytes) == []

    def heap_room(self, size_bytes: int) -> Room:
        """Return room outside L1, for bytes that L1 does not keep."""
        return Room("", size_bytes, 0)

    def write(self, room: Room, chunks: Iterable[Buffer]) -> None:
        """Fill `room`, in a worker thread.

        If L1 cannot give a file, the bytes stay on the heap. If tmpfs is full or descriptors are
        used up, the first try raises MemoryFull before it asks for a chunk: call `make_room`,
        then `write` again. If `chunks` raises, no file is left; the room still has to be
        discarded. Raises Overloaded if writing fails in the middle.
        """
        self._writer.write(room, chunks)

    def publish(
        self, room: Room, meta: EntryMeta, *, accesses: int, steady_ns: int
    ) -> MemoryEntry | None:
        """Make the written file the entry of its key, in place of an older one.

        Returns None if the bytes are on the heap: an older entry is removed even then.
        """
        self._settle(room)
        self.remove(meta.key, Leaving.REPLACED)
        if not isinstance(room.blob, SharedFile):
            return None
        # Other fills may have taken the places that were free when this one reserved.
        outside_bytes = self._reserved_bytes + self.held_bytes
        for victim, cause in self.index.plan_room(meta.key, room.size_bytes, outside_bytes) or ():
            self._remove(victim, cause)
        entry = MemoryEntry(meta, room.blob, accesses, steady_ns, meta.expires_ns(accesses))
        self.index.add(entry)
        # The next miss most likely has this size.
        if self.descriptors < self._max_files:
            self.spares.prepare(room.size_bytes, self.free_bytes)
        return entry

    def discard(self, room: Room) -> None:
        """Give back a room that was not published; its file was never an entry."""
        if room.settled:
            return
        self._settle(room)
        if isinstance(room.blob, SharedFile):
            blob, room.blob = room.blob, None
            self.departures.add(blob, None)
        with contextlib.suppress(IndexError):  # no spare, or `write` has it
            self.spares.drop(room.spare.pop())

    def _settle(self, room: Room) -> None:
        assert not room.settled
        room.settled = True
        self._reserved_bytes -= room.reserved_bytes
        self._rooms -= bool(room.name)

    # ---- leaving

    def remove(self, key: EntryKey, cause: Leaving) -> bool:
        """Take `key` out of the index and unlink its file. Returns whether it was there."""
        entry = self.index.peek(key)
        if entry is not None:
            self._remove(entry, cause)
        return entry is not None

    def remove_covered(self, scope: Scope) -> list[EntryKey]:
        """Remove every entry that `scope` covers, and return their keys."""
        keys = scope.keys()
        candidates = list(self.index) if keys is None else [self.index.peek(key) for key in keys]
        covered = [e for e in candidates if e is not None and scope.covers(e.key, e.meta.owner)]
        for entry in covered:
            self._remove(entry, Leaving.INVALIDATED)
        return [entry.key for entry in covered]

    def owes(self, scope: Scope) -> bool:
        """Return whether a removed entry that `scope` covers still has its file.

        If so, no change may be acknowledged: workers believe the file's link count.
        """
        return self.departures.owes(scope)

    def step(self, steady_ns: int) -> None:
        """Remove what expired, and let go of files that readers have closed."""
        for entry in [e for e in self.index if steady_ns >= e.expires_ns]:
            self._remove(entry, Leaving.EXPIRED)
        self.departures.step(steady_ns)

    def lower_times(self, now_ns: int) -> None:
        """Lower the times of Puts later than now to now; their bytes' age is unknown."""
        for entry in self.index:
            entry.meta = entry.meta.lowered(now_ns)

    def on_heap(self, data: Buffer, meta: EntryMeta) -> HeapBytes:
        """Return a blob of bytes that no tier holds."""
        blob = HeapBytes(data)
        self.keep_in_reach(blob, meta)
        return blob

    def keep_in_reach(self, blob: Blob, meta: EntryMeta) -> None:
        """Let an erasure end the answers that send `blob`, which is no entry of L1."""
        if isinstance(blob, HeapBytes):
            self.departures.keep_in_reach(blob, Whose(meta.key, meta.owner))

    def erase(self, scope: Scope) -> Callable[[], None]:
        """Let no answer send another byte of removed entries that `scope` covers.

        Returns a call that zeroes their files in all mappings: it is for a thread, and raises
        OSError.
        """
        return self.departures.erase(scope)

    def _remove(self, entry: MemoryEntry, cause: Leaving) -> None:
        """Take `entry` out of the index and unlink its file. Raises nothing: see `owes`."""
        self.index.remove(entry.key)
        self.departures.add(entry.blob, Whose(entry.key, entry.meta.owner))
        self._on_leaving(entry, cause)

    def close(self) -> None:
        """Remove every file. Readers keep what they have mapped. Blocks."""
        for entry in list(self.index):
            self.index.remove(entry.key)
            self.departures.add(entry.blob, Whose(entry.key, entry.meta.owner))
        self.spares.close()
        self.departures.close()
        os.close(self._directory_fd)
