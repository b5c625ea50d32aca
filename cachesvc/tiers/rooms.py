"""Writes a new entry's blob into a file of L1, otherwise to the heap. Runs in worker threads.

A file gets all its pages before its first byte is written.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from cachesvc.core import durable
from cachesvc.core.errors import MemoryFull, Overloaded
from cachesvc.core.tensors import Buffer
from cachesvc.tiers import files, spares
from cachesvc.tiers.shared_files import Blob, HeapBytes, OpenFile, SharedFile
from cachesvc.tiers.spares import Spare, Spares

FILE_MODE = 0o440
UNSHARED_MODE = 0o400


@dataclass(slots=True)
class Room:
    """Where a new blob goes: a file of this name, or the heap if L1 has no room for it.

    `reserved_bytes` of L1 belong to it until `publish` or `discard`. `blob` is set by `write`.
    `spare` has at most one file to write to; the code that pops it closes it. The pages in
    `leaving` have to be free before other pages are taken. `is_last_try` = a blob that finds
    no room goes to the heap.
    """

    name: str
    size_bytes: int
    reserved_bytes: int
    blob: Blob | None = None
    settled: bool = False
    is_last_try: bool = False
    spare: list[Spare] = field(default_factory=list)
    leaving: tuple[Future[None], ...] = ()

    @property
    def written(self) -> Blob:
        """The blob, once `write` has returned."""
        assert self.blob is not None
        return self.blob


def _write(fd: int, chunk: Buffer) -> None:
    try:
        durable.write_all(fd, chunk)
    except OSError as exc:
        # Not an OSError: code that streams from L2 would take it for an error of L2.
        raise Overloaded("L1 cannot be written", reason="NO_ROOM") from exc


def _give_up(room: Room, exc: OSError) -> None:
    """Leave the blob to the heap. Raises MemoryFull where evicting something may help."""
    if exc.errno in files.NO_ROOM and not room.is_last_try:
        raise MemoryFull(str(exc.strerror)) from exc


class RoomWriter:
    """Writes blobs into the files of one L1 directory."""

    def __init__(self, directory_fd: int, mode: int, gid: int | None, spare_files: Spares) -> None:
        self._directory_fd = directory_fd
        self._mode, self._gid = mode, gid
        self._spares = spare_files

    def write(self, room: Room, chunks: Iterable[Buffer]) -> None:
        """Fill `room`. See `MemoryTier.write`."""
        fd = self._obtain(room) if room.name else None
        if fd is None:
            # A chunk may be valid only until the next one is asked for.
            room.blob = HeapBytes(b"".join(bytes(chunk) for chunk in chunks))
            return
        try:
            for chunk in chunks:
                _write(fd, chunk)
        except BaseException:  # `chunks` may raise anything
            self._drop(fd, room)
            raise
        try:
            if os.fstat(fd).st_nlink == 0:
                spares.give_name(fd, room.name, self._directory_fd)
            room.blob = SharedFile(self._directory_fd, room.name, fd, room.size_bytes)
        except OSError:  # the directory is gone, or there is no address space
            room.blob = HeapBytes(os.pread(fd, room.size_bytes, 0))
            self._drop(fd, room)

    def _obtain(self, room: Room) -> int | None:
        """Return the descriptor of a file that has its pages, or None if L1 cannot give it.

        So space cannot run out in the middle of a stream that can be read only once.
        Raises MemoryFull where evicting something may help.
        """
        with contextlib.suppress(IndexError):  # no spare, or `discard` was faster
            spare = room.spare.pop()
            if spare.size_bytes < room.size_bytes:
                self._spares.wait_for(room.leaving)
            try:
                spares.fit(spare, room.size_bytes)
            except OSError as exc:
                os.close(spare.fd)
                _give_up(room, exc)
                return None
            return spare.fd
        self._spares.wait_for(room.leaving)
        return self._create(room)

    def _create(self, room: Room) -> int | None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(room.name, flags, self._mode, dir_fd=self._directory_fd)
        except OSError as exc:
            _give_up(room, exc)
            return None
        try:
            files.set_access(fd, self._mode, self._gid)
            os.posix_fallocate(fd, 0, room.size_bytes)
        except OSError as exc:
            self._drop(fd, room)
            _give_up(room, exc)
            return None
        return fd

    def _drop(self, fd: int, room: Room) -> None:
        """Drop a file that never was an entry; its pages are freed even if its name stays."""
        # A spare has no name yet; a name that stays is litter for the next start.
        with contextlib.suppress(OSError):
            os.unlink(room.name, dir_fd=self._directory_fd)
        OpenFile(self._directory_fd, room.name, fd, room.size_bytes).free()
