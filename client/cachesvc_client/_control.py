"""The daemon's control page, read: whether local hits are allowed right now, and here.

What lies where on it: `cachesvc_format.control_page`.

A link count is a token of validity only if it is the daemon's own inode that is looked at.
Through a filesystem that keeps attributes for a while (bindfs, some containers' mounts) it is
another one, whose count falls late. So the page says which inodes the daemon has.
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

# Bound once: Python would bind the method of an imported object anew at each hit.
_read_state = STATE_AND_HEARTBEAT.unpack_from
# Plain numbers: looking a member up costs a hit more than the comparison does.
_SERVING = int(State.SERVING)
_SUSPENDED = int(State.SUSPENDED)
_NOT_SHARED = int(State.NOT_SHARED)


class ControlPage:
    """One daemon's page, mapped. It stays that daemon's: a successor makes its own."""

    def __init__(self, page: mmap.mmap, boot_id: bytes, inode: Inode, owner_uid: int) -> None:
        self._page = page
        self.boot_id = boot_id
        # As this process sees it.
        self.inode = inode
        self.owner_uid = owner_uid

    def place(self) -> Place:
        """Return where the daemon says that it is. It says so before it serves."""
        return read_place(self._page)

    def is_shared(self) -> bool:
        """Return False if the daemon's own filesystem does not show that a file was removed."""
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
        """Return whether the daemon answers calls and lets nobody serve itself."""
        state, _ = _read_state(self._page, STATE_OFFSET)
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
