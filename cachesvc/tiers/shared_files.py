"""The bytes of one L1 entry: an immutable file in tmpfs, or the heap where there is no room.

A file is written once by a checked loop, never through a mapping, never truncated.
It is unlinked the moment it may not be served any more; its bytes live until the
last reader lets go, and the kernel counts the readers.
"""

from __future__ import annotations

import fcntl
import mmap
import os


class SharedFile:
    """A file in `l1/`. Keeps its writable descriptor, which is how readers are seen."""

    __slots__ = ("_directory_fd", "_fd", "_map", "name", "size_bytes")

    def __init__(self, directory_fd: int, name: str, fd: int, size_bytes: int) -> None:
        self._directory_fd = directory_fd
        self._fd = fd
        self._map: mmap.mmap | None = None
        self.name = name
        self.size_bytes = size_bytes

    def view(self) -> memoryview:
        """Return the blob, shape (size_bytes,), read-only, no copy.

        The view stays valid after `unlink` and `close`.
        """
        if self._map is None:
            self._map = mmap.mmap(self._fd, self.size_bytes, prot=mmap.PROT_READ)
        return memoryview(self._map)

    def unlink(self) -> None:
        """End its validity: the link count that readers look at becomes 0."""
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

    def close(self) -> None:
        # The mapping is dropped, not closed: an answer may still be read from it.
        self._map = None
        os.close(self._fd)


class HeapBytes:
    """The same for an entry that found no room in tmpfs. Never published."""

    __slots__ = ("_data", "size_bytes")

    def __init__(self, data: bytes | bytearray) -> None:
        self._data = data
        self.size_bytes = len(data)

    def view(self) -> memoryview:
        """Return the blob, shape (size_bytes,), read-only, no copy."""
        return memoryview(self._data).toreadonly()
