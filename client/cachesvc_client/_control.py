"""The daemon's control page, read: whether local hits are allowed right now.

Format (docs/on-disk-format.md), little-endian: magic 8 bytes, format version u32, state u32,
boot id 16 bytes, heartbeat u64 (CLOCK_MONOTONIC, ns).
"""

from __future__ import annotations

import mmap
import os
import struct
import time

NAME = "control"
PAGE_BYTES = 4096
# How long after the last heartbeat the daemon may be believed to live; the format fixes it.
HEARTBEAT_LIMIT_NS = 1_000_000_000

_MAGIC = b"cachesvc"
_VERSION = 1
_SERVING = 1
_SUSPENDED = 3
_HEADER = struct.Struct("<8sII16s")
_STATE_AND_HEARTBEAT = struct.Struct("<I16xQ")
_STATE_OFFSET = 12


class ControlPage:
    """One daemon's page, mapped. It stays that daemon's: a successor makes its own."""

    def __init__(self, page: mmap.mmap, boot_id: bytes) -> None:
        self._page = page
        self.boot_id = boot_id

    def is_serving(self) -> bool:
        """Return whether local hits are allowed: serving, and a heartbeat younger than 1 s.

        A heartbeat from the future is no heartbeat.
        """
        state, heartbeat_ns = _STATE_AND_HEARTBEAT.unpack_from(self._page, _STATE_OFFSET)
        age_ns: int = time.monotonic_ns() - heartbeat_ns
        return bool(state == _SERVING and 0 <= age_ns < HEARTBEAT_LIMIT_NS)

    def is_suspended(self) -> bool:
        """Return whether the daemon answers calls and lets nobody serve itself."""
        state, _ = _STATE_AND_HEARTBEAT.unpack_from(self._page, _STATE_OFFSET)
        return bool(state == _SUSPENDED)


def open_control_page(directory_fd: int) -> ControlPage | None:
    """Return the page in a runtime directory, or None if there is none that we know.

    Raises OSError where it exists and cannot be read.
    """
    # Not blocking: a FIFO of that name must not hang its opener.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(NAME, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(fd).st_size != PAGE_BYTES:
            return None
        page = mmap.mmap(fd, PAGE_BYTES, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    magic, version, _, boot_id = _HEADER.unpack_from(page)
    if magic != _MAGIC or version != _VERSION:
        return None
    return ControlPage(page, boot_id)
