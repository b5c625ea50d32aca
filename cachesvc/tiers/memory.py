"""L1: which entries are in memory, and their files in tmpfs.

The file is the truth: it is unlinked in the same function that takes it out of
the index. Everything but `write` runs on the event loop and never blocks; `spares.py`
takes pages beforehand and gives them back afterwards.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import structlog

from cachesvc.core.entry import EntryMeta, more_accesses
from cachesvc.core.errors import ConfigError
from cachesvc.core.keys import EntryKey
from cachesvc.core.lru import LruIndex, NamespaceLimits, Removal
from cachesvc.core.scopes import Scope
from cachesvc.core.tensors import Buffer
from cachesvc.tiers import files, leases
from cachesvc.tiers.departures import Departures, Whose
from cachesvc.tiers.rooms import FILE_MODE, Room, RoomWriter
from cachesvc.tiers.shared_files import HeapBytes, SharedFile
from cachesvc.tiers.spares import Spares

log = structlog.get_logger()
SUFFIX = ".safetensors"

_UNSEEN = (
    "evicted files count as held for 60 s, whoever reads them; then only tmpfs knows, "
    "and an erasure does not reach them"
)

# Called for each entry that leaves, and why.
OnRemoval = Callable[["MemoryEntry", Removal], None]


@dataclass(slots=True)
class MemoryEntry:
    """One entry of L1. `accesses` and `last_access_ns` (steady) change, the rest does not."""

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

    `held_bytes` are of files that left the index and are not free yet, because readers have
    them mapped or their name could not be removed; they are inside `max_bytes`, because tmpfs
    still pays for them. So are spare files, at most `spare_bytes` of them, but they give way
    to any entry. `on_owing` is told why a file could not be removed, and None when all are:
    no worker may serve itself in between.

    Raises:
        ConfigError: the directory is not usable, or its filesystem too small and
            `allow_heap` not set.
    """

    def __init__(
        self,
        path: Path,
        limits: dict[str, NamespaceLimits],
        max_bytes: int,
        *,
        on_removal: OnRemoval,
        gid: int | None = None,
        allow_heap: bool = False,
        spare_bytes: int = 0,
        on_owing: Callable[[str | None], None] = lambda problem: None,
    ) -> None:
        self.index: LruIndex[MemoryEntry] = LruIndex(limits, max_bytes)
        self._on_removal = on_removal
        self._directory_fd = files.open_directory(path, mode=0o750, gid=gid)
        self._reserved_bytes = 0
        # Part of each name: one that a dead daemon's answer gave must not lead to another file.
        self._life = os.urandom(8).hex()
        self._written = 0
        self._remove_leftovers(path)
        leases_work = self._try_lease(path)
        self.spares = Spares(self._directory_fd, spare_bytes, mode=FILE_MODE, gid=gid)
        self.departures = Departures(self.spares, leases_work=leases_work, on_owing=on_owing)
        self._writer = RoomWriter(self._directory_fd, gid, self.spares)
        available = files.free_bytes(self._directory_fd)
        if available < max_bytes and not allow_heap:
            raise ConfigError(
                f"{path}: {available:,} bytes are free, but l1.max_bytes is {max_bytes:,}. "
                "Give the filesystem more room (Docker: --shm-size), lower CACHESVC_L1__MAX_BYTES, "
                "or set CACHESVC_L1__ALLOW_HEAP=true to serve what does not fit from the heap"
            )

    def _remove_leftovers(self, path: Path) -> None:
        """Empty the directory: nothing of an earlier life may be served.

        Raises ConfigError: what cannot be removed now could not be invalidated either.
        """
        for name in os.listdir(self._directory_fd):
            try:
                os.unlink(name, dir_fd=self._directory_fd)
            except (IsADirectoryError, FileNotFoundError):
                continue
            except OSError as exc:
                raise _not_writable(path, exc, "a file of an earlier daemon stays there") from exc

    def _try_lease(self, path: Path) -> bool:
        """Return whether readers can be seen here, tried with a file that nobody else has.

        Raises ConfigError: no file can be made and removed there.
        """
        probe = f".probe-{os.getpid()}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(probe, flags, 0o600, dir_fd=self._directory_fd)
        except OSError as exc:
            if exc.errno in files.NO_ROOM:  # the check of the free space says what that costs
                return True
            raise _not_writable(path, exc) from exc
        try:
            os.unlink(probe, dir_fd=self._directory_fd)
            is_gone = os.fstat(fd).st_nlink == 0
            problem = leases.why_not(fd)
        except OSError as exc:
            raise _not_writable(path, exc) from exc
        finally:
            os.close(fd)
        if not is_gone:
            raise ConfigError(
                f"{path}: a removed file keeps its link count there, so nothing could be "
                "invalidated; set CACHESVC_RUNTIME_DIR to a directory in a tmpfs of this host"
            )
        if problem is not None:
            log.warning("l1_readers_cannot_be_seen", error=problem, consequence=_UNSEEN)
        return problem is None

    # ---- lookups

    def lookup(self, key: EntryKey, steady_ns: int) -> MemoryEntry | None:
        """Return the entry if it may be served now; an expired one is removed."""
        entry = self.index.peek(key)
        if entry is not None and steady_ns >= entry.expires_ns:
            self._remove(entry, Removal.EXPIRED)
            return None
        return entry

    def record_use(self, entry: MemoryEntry, steady_ns: int, count: int = 1) -> None:
        """Count hits: recency, accesses and the adaptive TTL."""
        entry.record_access(steady_ns, count)
        self.index.touch(entry.key)

    # ---- a new entry: reserve, write, then publish or discard

    def reserve(self, key: EntryKey, size_bytes: int) -> Room:
        """Evict until `size_bytes` fit, and own that room; it is on the heap if they cannot."""
        self.departures.collect()
        outside_bytes = self._reserved_bytes + self.held_bytes
        victims = self.index.plan_room(key, size_bytes, outside_bytes)
        if victims is None:
            return self.heap_room(size_bytes)
        for victim, cause in victims:
            self._remove(victim, cause)
        # Readers may still hold what was just evicted.
        if size_bytes > self.free_bytes:
            return self.heap_room(size_bytes)
        spare = self.spares.take(size_bytes, most_bytes=self.free_bytes)
        # The rest of a larger one is cut off when it is written.
        reserved_bytes = max(size_bytes, spare.size_bytes) if spare else size_bytes
        self._reserved_bytes += reserved_bytes
        self._written += 1
        room = Room(f"{self._life}-{self._written:x}{SUFFIX}", size_bytes, reserved_bytes)
        if spare is not None:
            room.spare.append(spare)
        room.leaving = self._make_spares_give_way()
        return room

    def _make_spares_give_way(self) -> tuple[Future[None], ...]:
        """Drop spares until the limit holds; return what must be free before pages are taken."""
        while self.spares.ready_bytes > self.free_bytes:
            self.spares.drop_oldest()
        if self.spares.ready_bytes + self.spares.leaving_bytes <= self.free_bytes:
            return ()
        return self.spares.leaving()

    @property
    def held_bytes(self) -> int:
        return self.departures.held_bytes

    @property
    def owed_files(self) -> int:
        """How many files of removed entries could not be removed yet."""
        return self.departures.owed_files

    @property
    def free_bytes(self) -> int:
        """What L1 may still take without evicting anything. Spares give way."""
        taken_bytes = self.index.used_bytes + self._reserved_bytes + self.held_bytes
        return max(0, self.index.max_bytes - taken_bytes)

    def filesystem_free_bytes(self) -> int:
        """Return what tmpfs has left for all who use it. For threads: it may block."""
        return files.free_bytes(self._directory_fd)

    def has_room(self, key: EntryKey, size_bytes: int) -> bool:
        """Return whether it would fit without evicting anything."""
        outside_bytes = self._reserved_bytes + self.held_bytes
        return self.index.plan_room(key, size_bytes, outside_bytes) == []

    def heap_room(self, size_bytes: int) -> Room:
        """Return room outside L1, for bytes that are only passing through."""
        return Room("", size_bytes, 0)

    def write(self, room: Room, chunks: Iterable[Buffer]) -> None:
        """Fill `room`, in a worker thread.

        If L1 cannot give a file (tmpfs is full, descriptors are used up) the bytes stay on
        the heap. If `chunks` raises, no file is left; the room still has to be discarded.
        Raises Overloaded if writing fails in the middle.
        """
        self._writer.write(room, chunks)

    def publish(
        self, room: Room, meta: EntryMeta, *, accesses: int, steady_ns: int
    ) -> MemoryEntry | None:
        """Make the written file the entry of its key, in place of an older one.

        Returns None if the bytes are on the heap: an older entry is gone all the same.
        """
        self._settle(room)
        self.remove(meta.key, Removal.REPLACED)
        if not isinstance(room.blob, SharedFile):
            return None
        # Other fills may have taken the places that were free when this one reserved.
        outside_bytes = self._reserved_bytes + self.held_bytes
        for victim, cause in self.index.plan_room(meta.key, room.size_bytes, outside_bytes) or ():
            self._remove(victim, cause)
        entry = MemoryEntry(meta, room.blob, accesses, steady_ns, meta.expires_ns(accesses))
        self.index.add(entry)
        # The next miss is most likely one of this size.
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

    # ---- leaving

    def remove(self, key: EntryKey, cause: Removal) -> bool:
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
            self._remove(entry, Removal.INVALIDATED)
        return [entry.key for entry in covered]

    def owes(self, scope: Scope) -> bool:
        """Return whether a removed entry that `scope` covers still has its file.

        Such a removal must not be acknowledged: workers believe the file's link count.
        """
        return self.departures.owes(scope)

    def step(self, steady_ns: int) -> None:
        """Remove what expired, and let go of files that readers have closed."""
        for entry in [e for e in self.index if steady_ns >= e.expires_ns]:
            self._remove(entry, Removal.EXPIRED)
        self.departures.step(steady_ns)

    def on_heap(self, data: bytes, meta: EntryMeta) -> HeapBytes:
        """Return a blob of bytes that no tier holds."""
        blob = HeapBytes(data)
        self.keep_in_reach(blob, meta)
        return blob

    def keep_in_reach(self, blob: object, meta: EntryMeta) -> None:
        """Let an erasure end the answers that send `blob`, which is no entry of L1."""
        if isinstance(blob, HeapBytes):
            self.departures.keep_in_reach(blob, Whose(meta.key, meta.owner))

    def erase(self, scope: Scope) -> Callable[[], None]:
        """Let no answer send another byte of removed entries that `scope` covers.

        Returns what zeroes their files for those who have them mapped: it is for a thread, and
        raises OSError.
        """
        return self.departures.erase(scope)

    def _remove(self, entry: MemoryEntry, cause: Removal) -> None:
        """Take it out of the index and unlink its file. Raises nothing: see `owes`."""
        self.index.remove(entry.key)
        self.departures.add(entry.blob, Whose(entry.key, entry.meta.owner))
        self._on_removal(entry, cause)

    def close(self) -> None:
        """Remove every file. Readers keep what they have mapped. Blocks."""
        for entry in list(self.index):
            self.index.remove(entry.key)
            self.departures.add(entry.blob, Whose(entry.key, entry.meta.owner))
        self.spares.close()
        self.departures.close()
        os.close(self._directory_fd)


def _not_writable(path: Path, exc: OSError, what: str = "no file can be made there") -> ConfigError:
    return ConfigError(
        f"{path}: {what}: {exc.strerror}; let uid {os.geteuid()} write there (its mode, "
        "chattr -a, a read-only mount), or set another CACHESVC_RUNTIME_DIR"
    )
