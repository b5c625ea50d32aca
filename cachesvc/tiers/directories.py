"""Opens directories below an open one, by descriptor: a planted link never leads elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from cachesvc.core import durable
from cachesvc.tiers import files


@contextlib.contextmanager
def directory(parent_fd: int, name: str) -> Iterator[int]:
    """Open a directory below another, never through a symlink."""
    fd = os.open(name, files.DIRECTORY_FLAGS, dir_fd=parent_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def made_directory(parent_fd: int, name: str) -> Iterator[int]:
    """As `directory`, but make it durably if it is missing."""
    durable.make_directory(parent_fd, name, 0o750)
    with directory(parent_fd, name) as fd:
        yield fd
