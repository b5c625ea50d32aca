"""Checks that a path still leads to the file or directory that was opened by it.

When a directory is deleted, moved or lazily unmounted under a daemon, the daemon keeps its
descriptors: it writes, syncs and reads files that no daemon finds after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class NameLost(OSError):
    """A path leads elsewhere, so the next daemon would not find what is written now."""


class Anchor:
    """A path, and the inode that it leads to, which has to stay open."""

    def __init__(self, path: Path, fd: int | None = None) -> None:
        """`fd` is what was opened by `path`, if the caller has it. Raises OSError."""
        self.path = path
        self._identity = _identity_of(path if fd is None else fd)

    def holds(self) -> bool:
        try:
            return _identity_of(self.path) == self._identity
        except OSError:
            return False


def lost_of(anchors: Iterable[Anchor]) -> list[Path]:
    """Return the paths that lead elsewhere, or nowhere. Blocks."""
    return [anchor.path for anchor in anchors if not anchor.holds()]


def check(anchors: Iterable[Anchor]) -> None:
    """Raise NameLost if a path leads elsewhere, or nowhere."""
    if lost := lost_of(anchors):
        raise NameLost(
            f"{lost[0]} was deleted, moved or unmounted under the daemon; "
            "put it back, or restart the daemon"
        )


def _identity_of(file: Path | int) -> tuple[int, int]:
    found = os.stat(file)
    return found.st_dev, found.st_ino
