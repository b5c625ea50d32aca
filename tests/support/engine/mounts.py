"""Filesystems that are really full, or really read-only: small tmpfs mounts, for root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class SmallFilesystem:
    """A small tmpfs, which a test fills, frees or makes read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all remaining bytes."""
        with open(self._filler, "ab", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(1 << 16)):
                pass

    def free(self) -> None:
        self._filler.unlink()

    def set_read_only(self, read_only: bool) -> None:
        mode = "remount,ro" if read_only else "remount,rw"
        subprocess.run(["mount", "-o", mode, self.path], check=True)


@contextmanager
def small_filesystem(path: Path, size_bytes: int, inodes: int = 0) -> Iterator[SmallFilesystem]:
    """Mount a filesystem at `path`; `inodes` 0 = no limit. Skips if mounting is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    path.mkdir(parents=True)
    options = f"size={size_bytes},nr_inodes={inodes}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        yield SmallFilesystem(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@contextmanager
def append_only(directory: Path) -> Iterator[None]:
    """Forbid unlinks in `directory`, for root too; skips if that is impossible."""
    if subprocess.run(["chattr", "+a", directory], check=False, capture_output=True).returncode:
        pytest.skip("chattr +a needs root, and a filesystem that knows it")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-a", directory], check=True)
