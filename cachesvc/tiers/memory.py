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
from dataclasses import dataclass, field
from pathlib import Path

from cachesvc.core.entry import EntryMeta, more_accesses
from cachesvc.core.errors import ConfigError, Overloaded
from cachesvc.core.keys import EntryKey
from cachesvc.core.lru import LruIndex, NamespaceLimits, Removal
from cachesvc.core.scopes import Scope
from cachesvc.core.tensors import Buffer
from cachesvc.tiers import files, spares
from cachesvc.tiers.shared_files import HeapBytes, SharedFile
from cachesvc.tiers.spares import Spare, Spares

FILE_MODE = 0o440
SUFFIX = ".safetensors"

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


@dataclass(slots=True)
class Room:
    """Where a coming blob goes: a file of this name, or the heap if L1 has no room for it.

    `reserved_bytes` of L1 are its own until `publish` or `discard`. `blob` is set by `write`.
    `spare` has at most one file to write to; whoever pops it closes it. What is in `leaving`
    has to be free before other pages are taken.
    """

    name: str
    size_bytes: int
    reserved_bytes: int
    blob: SharedFile | HeapBytes | None = None
    settled: bool = False
    spare: list[Spare] = field(default_factory=list)
    leaving: tuple[Future[None], ...] = ()


def _write(fd: int, chunk: Buffer) -> None:
    try:
        files.write_all(fd, chunk)
    except OSError as exc:
        # Not an OSError: whoever streams from L2 must not take it for one of L2's.
        raise Overloaded("L1 cannot be written", reason="NO_ROOM") from exc


class MemoryTier:
    """L1 in a directory of its own.

    `held_bytes` are of files that left the index while readers had them mapped;
    they are inside `max_bytes`, because tmpfs still pays for them. So are spare files,
    at most `spare_bytes` of them, but they give way to any entry.

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
    ) -> None:
        self.index: LruIndex[MemoryEntry] = LruIndex(limits, max_bytes)
        self._on_removal = on_removal
        self._gid = gid
        self._directory_fd = files.open_directory(path, mode=0o750, gid=gid)
        self._held: list[MemoryEntry] = []
        self._reserved_bytes = 0
        # Part of each name: one that a dead daemon's answer gave must not lead to another file.
        self._life = os.urandom(8).hex()
        self._written = 0
        self.held_bytes = 0
        self._remove_leftovers()
        self.spares = Spares(self._directory_fd, spare_bytes, mode=FILE_MODE, gid=gid)
        available = files.free_bytes(self._directory_fd)
        if available < max_bytes and not allow_heap:
            raise ConfigError(
                f"{path}: {available:,} bytes are free, but l1.max_bytes is {max_bytes:,}. "
                "Give the filesystem more room (Docker: --shm-size), lower CACHESVC_L1__MAX_BYTES, "
                "or set CACHESVC_L1__ALLOW_HEAP=true to serve what does not fit from the heap"
            )

    def _remove_leftovers(self) -> None:
        """Empty the directory: nothing of an earlier life may be served."""
        for name in os.listdir(self._directory_fd):
            with contextlib.suppress(IsADirectoryError):
                os.unlink(name, dir_fd=self._directory_fd)

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
        fd = self._obtain(room) if room.name else None
        if fd is None:
            # A chunk may be valid only until the next one is asked for.
            room.blob = HeapBytes(b"".join(bytes(chunk) for chunk in chunks))
            return
        try:
            for chunk in chunks:
                _write(fd, chunk)
        except BaseException:  # from `chunks` too, whatever it raises
            self._drop(fd, room.name)
            raise
        try:
            if os.fstat(fd).st_nlink == 0:
                spares.give_name(fd, room.name, self._directory_fd)
            room.blob = SharedFile(self._directory_fd, room.name, fd, room.size_bytes)
        except OSError:  # the directory is gone, or it needs one more descriptor
            room.blob = HeapBytes(os.pread(fd, room.size_bytes, 0))
            self._drop(fd, room.name)

    def _obtain(self, room: Room) -> int | None:
        """Return a descriptor whose space is already taken, or None if L1 cannot give it.

        Taking the space first means that it cannot run out in the middle of a stream that
        can be read only once.
        """
        with contextlib.suppress(IndexError):  # no spare, or `discard` was faster
            spare = room.spare.pop()
            if spare.size_bytes < room.size_bytes:
                self.spares.wait_for(room.leaving)
            try:
                spares.fit(spare, room.size_bytes)
            except OSError:
                os.close(spare.fd)
                return None
            return spare.fd
        self.spares.wait_for(room.leaving)
        return self._create(room)

    def _create(self, room: Room) -> int | None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(room.name, flags, FILE_MODE, dir_fd=self._directory_fd)
        except OSError:
            return None
        try:
            files.set_access(fd, FILE_MODE, self._gid)
            os.posix_fallocate(fd, 0, room.size_bytes)
        except OSError:
            self._drop(fd, room.name)
            return None
        return fd

    def _drop(self, fd: int, name: str) -> None:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):  # a spare that has no name yet
            os.unlink(name, dir_fd=self._directory_fd)

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
            room.blob.unlink()
            self.spares.close_later(room.blob, room.size_bytes)
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

    def step(self, steady_ns: int) -> None:
        """Remove what expired, and let go of files that readers have closed."""
        for entry in [e for e in self.index if steady_ns >= e.expires_ns]:
            self._remove(entry, Removal.EXPIRED)
        held, self._held = self._held, []
        for entry in held:
            if entry.blob.has_readers():
                self._held.append(entry)
            else:
                self.held_bytes -= entry.size_bytes
                self.spares.close_later(entry.blob, entry.size_bytes)

    def erase_held(self, scope: Scope) -> None:
        """Zero what readers still have mapped of entries that `scope` covers.

        Their entries have left the index before, by an invalidation or an eviction.
        """
        for entry in self._held:
            if scope.covers(entry.key, entry.meta.owner):
                entry.blob.erase()

    def _remove(self, entry: MemoryEntry, cause: Removal) -> None:
        self.index.remove(entry.key)
        entry.blob.unlink()
        if entry.blob.has_readers():
            self._held.append(entry)
            self.held_bytes += entry.size_bytes
        else:
            self.spares.close_later(entry.blob, entry.size_bytes)
        self._on_removal(entry, cause)

    def close(self) -> None:
        """Remove every file. Readers keep what they have mapped."""
        for entry in list(self.index):
            self.index.remove(entry.key)
            entry.blob.unlink()
            entry.blob.close()
        for entry in self._held:
            entry.blob.close()
        self._held = []
        self.spares.close()
        os.close(self._directory_fd)
