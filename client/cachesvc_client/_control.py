"""Reads the daemon's control page: may this process serve local hits right now?

`cachesvc_format.control_page` defines the page.

A link count shows validity only on the daemon's own inode. A filesystem that caches attributes
(bindfs, some containers' mounts) shows another inode, whose count falls late. So the page names the
daemon's inodes.
"""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

from cachesvc_format.control_page import (
    HEADER,
    HEARTBEAT_LIMIT_NS,
    MAGIC,
    NAME,
    PAGE_BYTES,
    STATE_AND_HEARTBEAT,
    STATE_OFFSET,
    VERSION,
    Inode,
    Place,
    State,
    inode_of,
    read_place,
)

# Bound once: otherwise Python would bind an imported object's method again at each hit.
_read_state = STATE_AND_HEARTBEAT.unpack_from
# Plain numbers: on a hit, a look-up of the enum's member costs more than the comparison.
_SERVING = int(State.SERVING)
_SUSPENDED = int(State.SUSPENDED)
_NOT_SHARED = int(State.NOT_SHARED)


class ControlPage:
    """One daemon's page, mapped. A restarted daemon makes a new page."""

    def __init__(self, page: mmap.mmap, boot_id: bytes, inode: Inode, owner_uid: int) -> None:
        self._page = page
        self.boot_id = boot_id
        # The page's inode, as this process sees it.
        self.inode = inode
        self.owner_uid = owner_uid

    def place(self) -> Place:
        """Return the daemon's inodes and time namespace, which it writes before it serves."""
        return read_place(self._page)

    def is_shared(self) -> bool:
        """Return False if the daemon's filesystem does not show that a file was unlinked."""
        state, _ = _read_state(self._page, STATE_OFFSET)
        return bool(state != _NOT_SHARED)

    def is_serving(self) -> bool:
        """Return whether local hits are allowed: serving, and a heartbeat younger than 1 s.

        A heartbeat from the future is no heartbeat.
        """
        state, heartbeat_ns = _read_state(self._page, STATE_OFFSET)
        age_ns: int = time.monotonic_ns() - heartbeat_ns
        return bool(state == _SERVING and 0 <= age_ns < HEARTBEAT_LIMIT_NS)

    def is_suspended(self) -> bool:
        """Return whether the daemon answers calls but allows no local hits."""
        state, _ = _read_state(self._page, STATE_OFFSET)
        return bool(state == _SUSPENDED)


def open_control_page(directory_fd: int) -> ControlPage | None:
    """Return the page in a runtime directory, or None without a page of a known version.

    Raises OSError if the page exists but cannot be read.
    """
    # O_NONBLOCK: opening a FIFO of that name must not hang.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(NAME, flags, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_size != PAGE_BYTES:
            return None
        page = mmap.mmap(fd, PAGE_BYTES, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    magic, version, _, boot_id = HEADER.unpack_from(page)
    if magic != MAGIC or version != VERSION:
        return None
    return ControlPage(page, boot_id, inode_of(status), status.st_uid)


def is_tmpfs(device: int) -> bool:
    """Return whether a device is a tmpfs of this kernel."""
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    # 36 35 0:31 / /dev/shm rw,nosuid shared:3 - tmpfs tmpfs rw
    fields = [line.partition(" - ") for line in mounts if f" {number} " in line]
    return any(
        before.split()[2] == number and after.startswith("tmpfs ") for before, _, after in fields
    )
