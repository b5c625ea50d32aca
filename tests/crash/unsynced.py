"""Which files could be on the disk after a power cut, if only synced changes are sure to be?

UnsyncedOs stands in for the module `os` in the modules that make all of L2's file calls. Each call
is made for real, and also recorded here: bytes and directory entries apart, synced and unsynced
changes apart. A cut keeps any subset of the unsynced changes, in any combination: that is stricter
than a filesystem with one journal.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PART_BYTES = 8192  # what one write takes, so that an entry may be torn


@dataclass
class Disk:
    """Inodes by number: a directory's has its entries, a file's its bytes. 0 is the root."""

    entries: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})
    data: dict[int, bytearray] = field(default_factory=dict)

    def find(self, path: str) -> int:
        inode = 0
        for name in Path(path).parts:
            inode = self.entries[inode][name]
        return inode

    def write_to(self, folder: Path) -> None:
        """Write the files below `folder` that can be reached from the root."""
        folder.mkdir()
        self._write_directory(0, folder)

    def _write_directory(self, inode: int, folder: Path) -> None:
        for name, child in self.entries[inode].items():
            if child in self.entries:
                (folder / name).mkdir()
                self._write_directory(child, folder / name)
            else:
                (folder / name).write_bytes(self.data[child])


@dataclass(frozen=True)
class Linked:
    """Entries (directory, name) that will name an inode, or nothing: all of them or none."""

    changes: tuple[tuple[int, str, int | None], ...]

    def apply(self, disk: Disk) -> None:
        for directory, name, inode in self.changes:
            if inode is None:
                disk.entries[directory].pop(name, None)
            else:
                disk.entries[directory][name] = inode

    def is_synced_by(self, inode: int) -> bool:
        return any(directory == inode for directory, _, _ in self.changes)


@dataclass(frozen=True)
class Written:
    """Bytes at an offset of a file. If the bytes before the offset are lost, zeros stand there."""

    inode: int
    offset: int
    data: bytes = field(repr=False)

    def apply(self, disk: Disk) -> None:
        content, end = disk.data[self.inode], self.offset + len(self.data)
        content.extend(bytes(max(0, end - len(content))))
        content[self.offset : end] = self.data

    def is_synced_by(self, inode: int) -> bool:
        return inode == self.inode


@dataclass(frozen=True)
class Moment:
    """The changes that are sure to be on the disk, those that may be, and what `look` saw then."""

    synced: Disk
    pending: tuple[Linked | Written, ...]
    seen: Any

    def after_a_cut(self, kept: Iterable[bool]) -> Disk:
        disk = deepcopy(self.synced)
        for change, is_kept in zip(self.pending, kept, strict=True):
            if is_kept:
                change.apply(disk)
        return disk


class UnsyncedOs:
    """The module `os`, for files below `root`; everything else is the real module's.

    Before each change it notes a moment, with the result of `look`.
    """

    def __init__(self, root: Path, look: Callable[[], Any]) -> None:
        self._root = str(root)
        self._look = look
        self._lock = threading.RLock()
        self._now = Disk()
        self._synced = Disk()
        self._pending: list[Linked | Written] = []
        self._open: dict[int, int] = {}
        self._inodes = 0
        self.moments: list[Moment] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def note(self) -> None:
        """Remember this moment as one at which the power may go."""
        with self._lock:
            self.moments.append(Moment(deepcopy(self._synced), tuple(self._pending), self._look()))

    # ---- the calls

    def open(self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._lock:
            where = self._below_root(path, dir_fd)
            creates = where is not None and flags & os.O_CREAT
            if creates:
                self.note()
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            if creates:
                assert where is not None
                inode = self._new_inode()
                self._now.data[inode], self._synced.data[inode] = bytearray(), bytearray()
                self._change(Linked(((*self._place(where), inode),)))
            if where is not None:
                self._open[fd] = self._now.find(where)
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            os.close(fd)

    def write(self, fd: int, data: Any) -> int:
        """Write a part only: a caller that does not go on has a short file."""
        with self._lock:
            if fd not in self._open:
                return os.write(fd, data)
            view = memoryview(data)[:PART_BYTES]
            self.note()
            offset = os.lseek(fd, 0, os.SEEK_CUR)
            written = os.write(fd, view)
            self._change(Written(self._open[fd], offset, bytes(view[:written])))
            return written

    def fsync(self, fd: int) -> None:
        with self._lock:
            if fd not in self._open:
                os.fsync(fd)
                return
            self.note()
            os.fsync(fd)
            inode = self._open[fd]
            for change in [c for c in self._pending if c.is_synced_by(inode)]:
                change.apply(self._synced)
                self._pending.remove(change)

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        with self._lock:
            self.note()
            os.mkdir(path, mode, dir_fd=dir_fd)
            if where := self._below_root(str(path), dir_fd):
                inode = self._new_inode()
                self._now.entries[inode], self._synced.entries[inode] = {}, {}
                self._change(Linked(((*self._place(where), inode),)))

    def rename(self, src: str, dst: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        with self._lock:
            self.note()
            source, target = self._below_root(src, src_dir_fd), self._below_root(dst, dst_dir_fd)
            assert source is not None
            assert target is not None
            os.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            inode = self._now.find(source)
            self._change(Linked(((*self._place(target), inode), (*self._place(source), None))))

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        self._remove(os.unlink, path, dir_fd)

    def rmdir(self, path: str, *, dir_fd: int | None = None) -> None:
        self._remove(os.rmdir, path, dir_fd)

    # ---- the record of changes

    def _remove(self, call: Callable[..., None], path: str, dir_fd: int | None) -> None:
        with self._lock:
            self.note()
            where = self._below_root(path, dir_fd)
            call(path, dir_fd=dir_fd)
            if where:
                self._change(Linked(((*self._place(where), None),)))

    def _change(self, change: Linked | Written) -> None:
        change.apply(self._now)
        self._pending.append(change)

    def _new_inode(self) -> int:
        self._inodes += 1
        return self._inodes

    def _place(self, where: str) -> tuple[int, str]:
        path = Path(where)
        return self._now.find(str(path.parent)), path.name

    def _below_root(self, path: Any, dir_fd: int | None) -> str | None:
        """Return the path relative to the root ("" is the root); None if the path is outside."""
        base = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        whole = os.path.normpath(Path(base) / path)
        if whole == self._root:
            return ""
        below = f"{self._root}/"
        return whole.removeprefix(below) if whole.startswith(below) else None
