"""A disk that loses its power: unsynced changes are lost, as on a real one. For root.

It is a filesystem of its own in a loop device. `cut_power` stops it between two writes to the
device (FS_IOC_SHUTDOWN without flushing its log): changes that the kernel had only in memory are
never written. The next mount replays the journal, as after a reboot.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.debian import why_missing

_FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
_WITHOUT_FLUSHING_THE_LOG = struct.pack("I", 2)
# The least size that each makes a filesystem of, with room for a few hundred entries.
_SIZES_BYTES = {"ext4": 64 << 20, "xfs": 320 << 20}


def why_not_available(kind: str) -> str | None:
    """Return why no such disk can be made here, or None."""
    if os.geteuid() != 0:
        return "a filesystem in a loop device needs root"
    return why_missing(f"mkfs.{kind}", "mount", "umount")


class LossyDisk:
    """Mounted at `path`. While the power is off `path` is an empty directory."""

    def __init__(self, kind: str, path: Path) -> None:
        self.path = path
        self._image = path.with_suffix(f".{kind}")
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_SIZES_BYTES[kind])
        _run(f"mkfs.{kind}", "-q", self._image)

    def switch_on(self) -> None:
        """Mount it; its journal is replayed."""
        _run("mount", "-o", "loop", self._image, self.path)

    def cut_power(self) -> None:
        """Stop all writes to the device; a process that uses the disk gets EIO."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, _FS_IOC_SHUTDOWN, _WITHOUT_FLUSHING_THE_LOG)
        finally:
            os.close(fd)

    def take_away(self) -> None:
        """Unmount it. No process may have a file of it open any more."""
        _run("umount", self.path)

    def close(self) -> None:
        # A failed test may have left a process behind that still has the disk open.
        subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)
        self._image.unlink()


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


@contextmanager
def lossy_disk(kind: str, path: Path) -> Iterator[LossyDisk]:
    """Make a disk, with the power on. Raises OSError if loop devices cannot be used."""
    disk = LossyDisk(kind, path)
    try:
        disk.switch_on()
        yield disk
    finally:
        disk.close()
