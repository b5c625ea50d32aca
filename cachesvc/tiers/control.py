"""Writes the control page, by which workers on this host see that the daemon lives.

It is one page in the runtime directory, mapped by every worker; its layout is in
`cachesvc_format.control_page`. A local hit needs state SERVING, a heartbeat younger than 1 s,
and the very inodes that the page names: a filesystem that caches attributes shows a worker
old link counts.

A file of L1 that cannot be unlinked keeps its link count and looks valid, so the page then
suspends all local hits. Calls are answered.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from cachesvc.core import durable
from cachesvc.tiers import files
from cachesvc_format.control_page import (
    HEADER,
    HEARTBEAT_OFFSET,
    MAGIC,
    NAME,
    PAGE_BYTES,
    STATE_OFFSET,
    VERSION,
    Place,
    State,
    inode_of,
    time_namespace,
    write_place,
)

HEARTBEAT_EVERY_S = 0.1
_PROBE = ".probe"


class ControlPage:
    """This daemon's page. Made by `replace_control_page`."""

    def __init__(self, page: mmap.mmap, boot_id: bytes, status: os.stat_result) -> None:
        self.boot_id = boot_id
        self._page = page
        self._status = status
        self._is_shared = False
        self._is_open = False
        self._suspended_for: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self, l1: Path) -> bool:
        """Begin to serve. A thread of its own beats, even while the loop is stuck.

        Returns whether workers may map the files of `l1`.

        A stuck loop acknowledges no invalidation, so the heartbeat need not come from it.
        """
        self._is_shared = shows_removals(l1)
        place = Place(inode_of(self._status), inode_of(l1.stat()), time_namespace())
        write_place(self._page, place)
        self._write_heartbeat()
        self._is_open = True
        self._write_own_state()
        self._thread.start()
        return self._is_shared

    def suspend(self, why: str) -> None:
        """End local hits at once, until `resume(why)`. Safe to call before `start`, or again."""
        self._suspended_for.add(why)
        self._write_own_state()

    def resume(self, why: str) -> None:
        """Allow local hits again, unless the page is retired, or suspended for another reason."""
        self._suspended_for.discard(why)
        self._write_own_state()

    @property
    def allows_local_hits(self) -> bool:
        return self._is_open and self._is_shared and not self._suspended_for

    def retire(self) -> None:
        """End local hits at once; calls are still answered."""
        self._is_open = False
        self._write_own_state()

    def _write_own_state(self) -> None:
        if not self._is_open:
            state = State.CLOSED
        elif not self._is_shared:
            state = State.NOT_SHARED
        else:
            state = State.SUSPENDED if self._suspended_for else State.SERVING
        _write_state(self._page, state)

    def close(self) -> None:
        """Retire and stop beating. Call it before the runtime directory is unlocked."""
        self.retire()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._page.close()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_EVERY_S):
            self._write_heartbeat()

    def _write_heartbeat(self) -> None:
        _store(self._page, "Q", HEARTBEAT_OFFSET, time.monotonic_ns())


def close_predecessor(directory_fd: int) -> bytes | None:
    """Mark a dead daemon's page as closed, and return its boot id; None if there is no page.

    Call it with the runtime directory's lock held. Workers that map the page stop at once.
    """
    try:
        fd = os.open(NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    except OSError:
        return None
    try:
        if not files.is_regular(fd) or os.fstat(fd).st_size != PAGE_BYTES:
            return None
        page = mmap.mmap(fd, PAGE_BYTES)
    finally:
        os.close(fd)
    _write_state(page, State.CLOSED)
    boot_id: bytes = HEADER.unpack_from(page)[3]
    page.close()
    return boot_id


def replace_control_page(directory_fd: int, gid: int | None) -> ControlPage:
    """Put a new page, not serving yet, in the place of the old one. Raises OSError."""
    temporary = f".{NAME}.new"
    boot_id = os.urandom(16)
    # A start that died may have left the name. A planted FIFO would make the open hang.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=directory_fd)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o640, dir_fd=directory_fd)
    try:
        files.set_access(fd, 0o640, gid)
        header = HEADER.pack(MAGIC, VERSION, State.CLOSED, boot_id)
        durable.write_all(fd, header.ljust(PAGE_BYTES, b"\0"))
        page = mmap.mmap(fd, PAGE_BYTES)
        status = os.fstat(fd)
    finally:
        os.close(fd)
    os.rename(temporary, NAME, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    return ControlPage(page, boot_id, status)


def shows_removals(directory: Path) -> bool:
    """Return whether an open file's link count shows that the file was unlinked.

    NFS and FUSE rename an open file instead of unlinking it, and its link count stays 1.
    """
    probe = directory / _PROBE
    try:
        probe.unlink(missing_ok=True)
        with probe.open("xb"), probe.open("rb") as reader:
            probe.unlink()
            return os.fstat(reader.fileno()).st_nlink == 0
    except OSError:
        return False


def _write_state(page: mmap.mmap, state: State) -> None:
    _store(page, "I", STATE_OFFSET, state)


def _store(page: mmap.mmap, unit: Literal["I", "Q"], offset: int, value: int) -> None:
    """Write one aligned integer in a single store.

    `struct.pack_into` writes zeros first and then byte after byte; workers that read the page
    meanwhile would see no heartbeat, or half of one.
    """
    assert sys.byteorder == "little"
    with memoryview(page) as whole, whole.cast(unit) as units:
        units[offset // units.itemsize] = value
