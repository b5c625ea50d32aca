"""Files that are whole or not there after a power cut, below directories that are open."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from cachesvc.core.tensors import Buffer

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_all(fd: int, data: Buffer) -> None:
    """Write every byte. A full tmpfs returns a short count instead of an error."""
    view = memoryview(data).cast("B")
    while view.nbytes:
        written = os.write(fd, view)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


@contextlib.contextmanager
def new_file(directory_fd: int, name: str, mode: int) -> Iterator[int]:
    """Create a file for the length of a `with`, which writes and moves it.

    If that fails, nothing is left under `name`. Raises OSError.
    """
    fd = os.open(name, _CREATE, mode, dir_fd=directory_fd)
    try:
        yield fd
    except BaseException:  # an interrupt must not leave a half-written file either
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory_fd)
        raise
    finally:
        os.close(fd)


def write(fd: int, *parts: Buffer) -> None:
    """Write all of `parts`, and return once the disk has them. Raises OSError."""
    for part in parts:
        write_all(fd, part)
    os.fsync(fd)


def move(name: str, directory_fd: int, to_name: str, to_directory_fd: int) -> None:
    """Move a written file to its place, and return once the disk has its name.

    If the disk does not take the name, the file is removed. Raises OSError.
    """
    os.rename(name, to_name, src_dir_fd=directory_fd, dst_dir_fd=to_directory_fd)
    try:
        os.fsync(to_directory_fd)
    except BaseException:  # its writer is told of a failure, so the file must not stay
        os.unlink(to_name, dir_fd=to_directory_fd)
        raise


def make_directory(parent_fd: int, name: str, mode: int) -> None:
    """Make a directory unless it is there, and return once the disk has its name."""
    try:
        os.mkdir(name, mode, dir_fd=parent_fd)
    except FileExistsError:
        return
    os.fsync(parent_fd)
