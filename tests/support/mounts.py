"""Through what may a worker see a directory? A test's own mounts, and another time namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.debian import why_missing

MOUNTS_WITHIN_S = 20
# For how long attributes and names are kept; many container mounts keep them for 1 s.
KEPT_S = 3600


def need(*programs: str) -> None:
    """Skip the test, naming the missing program."""
    if (reason := why_missing(*programs)) is not None:
        pytest.skip(reason)
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount and to make namespaces")


@contextmanager
def bind_mounted(directory: Path, at: Path) -> Iterator[Path]:
    """Mount `directory` itself at a second place."""
    need("mount")
    with _mounted(at, "mount", "--bind", str(directory), str(at)):
        yield at


@contextmanager
def read_only(directory: Path) -> Iterator[Path]:
    """Make `directory` read-only, for root too."""
    need("mount")
    subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
    try:
        remount = ["mount", "-o", "remount,bind,ro", str(directory)]
        subprocess.run(remount, check=True, timeout=MOUNTS_WITHIN_S)
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def cached(directory: Path, at: Path) -> Iterator[Path]:
    """Show `directory` through a FUSE filesystem that keeps attributes and names."""
    need("bindfs")
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    kept = f"attr_timeout={KEPT_S},entry_timeout={KEPT_S},negative_timeout={KEPT_S},kernel_cache"
    with _mounted(at, "bindfs", "-o", kept, str(directory), str(at)):
        yield at


@contextmanager
def overlaid(directory: Path, at: Path) -> Iterator[Path]:
    """Show `directory` as the upper layer of an overlay."""
    need("mount")
    layers = at.parent / f"{at.name}-layers"
    lower, work = layers / "lower", directory.parent / f"{directory.name}-work"
    lower.mkdir(parents=True)
    work.mkdir()
    try:
        options = f"lowerdir={lower},upperdir={directory},workdir={work}"
        with _mounted(at, "mount", "-t", "overlay", "overlay", "-o", options, str(at)):
            yield at
    finally:
        shutil.rmtree(work)


@contextmanager
def _mounted(at: Path, *command: str) -> Iterator[None]:
    at.mkdir()
    made = subprocess.run(command, capture_output=True, text=True, timeout=MOUNTS_WITHIN_S)
    if made.returncode:
        at.rmdir()
        pytest.skip(f"cannot mount with {command[0]}: {made.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily: a process that still has a file of it open must not make the test fail.
        subprocess.run(["umount", "--lazy", str(at)], check=True, timeout=MOUNTS_WITHIN_S)
        at.rmdir()
