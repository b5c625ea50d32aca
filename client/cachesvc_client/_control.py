"""The daemon's control page, read: whether local hits are allowed right now, and here.

Format (docs/on-disk-format.md), little-endian: magic 8 bytes, format version u32, state u32,
boot id 16 bytes, heartbeat u64 (CLOCK_MONOTONIC, ns), then where the daemon is: device and
inode of this page and of `l1/`, and its time namespace, u64 each.

A link count is a token of validity only if it is the daemon's own inode that is looked at.
Through a filesystem that keeps attributes for a while (bindfs, some containers' mounts) it is
another one, whose count falls late. So the page says which inodes the daemon has.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

NAME = "control"
PAGE_BYTES = 4096
# How long after the last heartbeat the daemon may be believed to live; the format fixes it.
HEARTBEAT_LIMIT_NS = 1_000_000_000

_MAGIC = b"cachesvc"
_VERSION = 1
_SERVING = 1
_SUSPENDED = 3
_NOT_SHARED = 4
_HEADER = struct.Struct("<8sII16s")
_STATE_AND_HEARTBEAT = struct.Struct("<I16xQ")
_STATE_OFFSET = 12
_PLACE = struct.Struct("<5Q")
_PLACE_OFFSET = 40


class Inode(NamedTuple):
    """One file or directory, whatever its path. Each filesystem has a device of its own."""

    device: int
    number: int


def inode_of(status: os.stat_result) -> Inode:
    return Inode(status.st_dev, status.st_ino)


class Place(NamedTuple):
    """Where the daemon is, as it says. All 0 = it is older than that."""

    page: Inode
    l1: Inode
    time_namespace: int


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
        device, number, l1_device, l1_number, namespace = _PLACE.unpack_from(
            self._page, _PLACE_OFFSET
        )
        return Place(Inode(device, number), Inode(l1_device, l1_number), namespace)

    def is_shared(self) -> bool:
        """Return False if the daemon's own filesystem does not show that a file was removed."""
        state, _ = _STATE_AND_HEARTBEAT.unpack_from(self._page, _STATE_OFFSET)
        return bool(state != _NOT_SHARED)

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
        status = os.fstat(fd)
        if status.st_size != PAGE_BYTES:
            return None
        page = mmap.mmap(fd, PAGE_BYTES, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
    magic, version, _, boot_id = _HEADER.unpack_from(page)
    if magic != _MAGIC or version != _VERSION:
        return None
    return ControlPage(page, boot_id, inode_of(status), status.st_uid)


def time_namespace() -> int:
    """Return the number of this process's time namespace; 0 if the kernel does not say."""
    try:
        return Path("/proc/self/ns/time").stat().st_ino
    except OSError:
        return 0


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
