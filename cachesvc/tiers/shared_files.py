"""The bytes of one L1 entry: an immutable file in tmpfs, or the heap where there is no room.

A file is written once by a checked loop, never through a mapping, never truncated.
It is unlinked the moment it may not be served any more; its bytes live until the
last reader lets go, and the kernel counts the readers.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


class SharedFile:
    """A file in `l1/`. Keeps its writable descriptor, which is how readers are seen."""

    __slots__ = ("_directory_fd", "_fd", "_map", "is_erased", "name", "size_bytes")

    def __init__(self, directory_fd: int, name: str, fd: int, size_bytes: int) -> None:
        self._directory_fd = directory_fd
        self._fd = fd
        # Mapped at once: an answer may be read from it after `close`, when the
        # descriptor's number may already be another file's.
        self._map = mmap.mmap(fd, size_bytes, prot=mmap.PROT_READ)
        self.name = name
        self.size_bytes = size_bytes
        self.is_erased = False

    @property
    def shared_name(self) -> str | None:
        """Its name in the L1 directory."""
        return self.name

    def view(self) -> memoryview:
        """Return the blob, shape (size_bytes,), read-only, no copy.

        The view stays valid after `unlink` and `close`.
        """
        return memoryview(self._map)

    def unlink(self) -> None:
        """End its validity: the link count that readers look at becomes 0.

        It is 0 already where somebody deleted the file under the daemon (logind's RemoveIPC):
        then too the entry has to leave, or an invalidation would end here, before L2.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name, dir_fd=self._directory_fd)

    def has_readers(self) -> bool:
        """Return whether another process has it open or mapped. Call after `unlink` only.

        A write lease is granted only if nobody else has the file (1.7 us). It is given
        back at once; an unlinked file has no new openers who could wait for it.
        """
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            return True
        fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False

    def erase(self) -> None:
        """Zero the pages that readers have mapped, in place (0.8 ms for 10 MB).

        Their copies of pages they wrote to, pinned pages and GPU memory stay as they are.
        A hole is punched because truncating would kill the readers (SIGBUS).
        """
        mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
        self.is_erased = True
        if _libc.fallocate(self._fd, mode, 0, self.size_bytes):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Let go of the descriptor. The mapping goes with the last answer that uses it."""
        os.close(self._fd)


class HeapBytes:
    """The same for an entry that found no room in tmpfs. Never published."""

    __slots__ = ("_data", "size_bytes")
    shared_name = None
    is_erased = False

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.size_bytes = len(data)

    def view(self) -> memoryview:
        """Return the blob, shape (size_bytes,), read-only, no copy."""
        return memoryview(self._data).toreadonly()
