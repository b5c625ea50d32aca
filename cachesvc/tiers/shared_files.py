"""The bytes of one L1 entry: an immutable file in tmpfs, or the heap where there is no room.

A file is written once by a checked loop, never through a mapping, never truncated.
It is unlinked the moment it may not be served any more; its bytes live until the
last reader lets go, and the kernel counts the readers.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import threading

from cachesvc.core.tensors import Buffer
from cachesvc.tiers import leases

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_MAP_FAILED = ctypes.c_void_p(-1).value
# More than any address space: one type serves mappings of every size.
_NO_SIZE = 1 << 62
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


class Mapping(ctypes.c_ubyte * _NO_SIZE):  # type: ignore[misc]  # a type made by ctypes
    """A file's pages, read-only. They are unmapped with the last view of them.

    Python's own mmap keeps a second descriptor of the file for as long as it lives, until
    3.13; L1 would need two for each entry.
    """

    mapped_bytes = 0

    @classmethod
    def of(cls, fd: int, size_bytes: int) -> Mapping:
        """Map the file. Raises OSError."""
        address = _libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address == _MAP_FAILED:
            raise _last_error()
        mapping: Mapping = cls.from_address(address)
        mapping.mapped_bytes = size_bytes
        return mapping

    def view(self) -> memoryview:
        """Return the pages, shape (size_bytes,)."""
        return memoryview(self).cast("B")[: self.mapped_bytes].toreadonly()

    def __del__(self, libc: ctypes.CDLL = _libc) -> None:
        libc.munmap(ctypes.addressof(self), self.mapped_bytes)


class OpenFile:
    """The writable descriptor of one file of L1: unlinks the file and sees its readers.

    It holds no mapping: code that only waits for the readers must not keep the pages mapped.
    For the event loop; threads may also call `punch` and `free`.
    """

    __slots__ = ("_directory_fd", "_fd", "_lock", "name", "problem", "size_bytes")

    def __init__(self, directory_fd: int, name: str, fd: int, size_bytes: int) -> None:
        self._directory_fd = directory_fd
        self._fd = fd
        # Held while the descriptor is used or closed: its number may be given out again.
        self._lock = threading.Lock()
        self.name = name
        self.size_bytes = size_bytes
        # Why the last `unlink` failed.
        self.problem = ""

    def map(self) -> Mapping:
        """Map its pages. Raises OSError."""
        return Mapping.of(self._fd, self.size_bytes)

    def unlink(self) -> bool:
        """Unlink the file; return whether its link count, which readers check, is 0 now.

        The file may already have been deleted (logind's RemoveIPC does that) or moved, or have
        a hard link: only the count tells.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.name, dir_fd=self._directory_fd)
            if os.fstat(self._fd).st_nlink == 0:
                return True
            self.problem = "the file has another name"
        except OSError as exc:
            self.problem = exc.strerror or "unknown"
        return False

    def shut_out(self) -> None:
        """Take all permissions away: descriptors made with O_PATH could still open the file.

        Readers that have it open keep it. Only its owner and root could open it again.
        """
        with contextlib.suppress(OSError):  # what cannot be changed has been logged by `unlink`
            os.fchmod(self._fd, 0)

    def has_readers(self) -> bool:
        """Return whether another process has it open or mapped. Call it only after `unlink`."""
        return leases.is_open_elsewhere(self._fd)

    def punch(self) -> None:
        """Zero its pages in place and give them back (0.8 ms for 10 MB). Raises OSError.

        A hole is punched because truncating would kill the readers (SIGBUS). Their copies of
        pages they wrote to, pinned pages and GPU memory stay as they are.
        """
        with self._lock:
            if self._fd >= 0:
                _punch(self._fd, self.size_bytes)

    def free(self) -> None:
        """Give its pages back and close it. Call it when the file has no readers.

        A descriptor made with O_PATH would keep the pages, so they are freed before the close:

            A: opens by name, not counted yet | D: unlinks, sees no reader, punches
            A: counted, maps, reads zeros, looks at the link count: 0 -> asks again
        """
        with self._lock:
            with contextlib.suppress(OSError):  # no tmpfs: then the last descriptor frees it
                _punch(self._fd, self.size_bytes)
            self._end()

    def close(self) -> None:
        """Let go of the descriptor. Readers keep what they have."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


class SharedFile:
    """A file in `l1/`, mapped for the daemon's own reads."""

    __slots__ = ("__weakref__", "_view", "file", "is_erased", "mapping", "senders")

    def __init__(self, directory_fd: int, name: str, fd: int, size_bytes: int) -> None:
        self.file = OpenFile(directory_fd, name, fd, size_bytes)
        # Mapped at once: an answer may be read from it after its file was closed.
        self.mapping = self.file.map()
        self._view = self.mapping.view()
        self.is_erased = False
        # How many streams send it: a stream may take long.
        self.senders = 0

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def size_bytes(self) -> int:
        return self.file.size_bytes

    @property
    def shared_name(self) -> str | None:
        """Its name in the L1 directory."""
        return self.file.name

    def view(self) -> memoryview:
        """Return the blob, shape (size_bytes,), read-only, no copy.

        The view stays valid after the file has left L1, unless it is erased.
        """
        return self._view


class HeapBytes:
    """An entry's bytes that found no room in tmpfs. Never published."""

    __slots__ = ("__weakref__", "_data", "is_erased", "size_bytes")
    shared_name = None

    def __init__(self, data: Buffer) -> None:
        self._data = data
        self.size_bytes = len(data)
        self.is_erased = False

    def view(self) -> memoryview:
        """Return the blob, shape (size_bytes,), read-only, no copy."""
        return memoryview(self._data).toreadonly()


# A whole entry's bytes, wherever they are. `shared_name` is its file in L1's directory, None if
# it has none.
Blob = SharedFile | HeapBytes


def _punch(fd: int, size_bytes: int) -> None:
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    # To the end of the last page: a page that is only partly in the hole is zeroed and kept.
    whole_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
    if _libc.fallocate(fd, mode, 0, whole_bytes):
        raise _last_error()


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
