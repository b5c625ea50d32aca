"""Checks, before the first entry, that L1 can use its directory.

A file that cannot be unlinked, or keeps its link count then, could not be invalidated.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from cachesvc.config.messages import setting
from cachesvc.core import units
from cachesvc.core.errors import ConfigError
from cachesvc.tiers import files, leases

log = structlog.get_logger()
_UNSEEN = (
    "evicted files count within l1.max_bytes for 60 s, even if nobody reads them; files that are "
    "read for longer count only in tmpfs, and an erasure does not reach them"
)


def remove_leftovers(path: Path, directory_fd: int) -> None:
    """Empty the directory: nothing of an earlier life may be served.

    Raises ConfigError: a file that cannot be unlinked could not be invalidated either.
    """
    for name in os.listdir(directory_fd):
        try:
            os.unlink(name, dir_fd=directory_fd)
        except (IsADirectoryError, FileNotFoundError):
            continue
        except OSError as exc:
            raise _not_writable(path, exc, "a file of an earlier daemon stays there") from exc


def leases_work(path: Path, directory_fd: int) -> bool:
    """Return whether leases show readers here, tried with a file of our own.

    Raises ConfigError: no file can be made and unlinked there.
    """
    probe = f".probe-{os.getpid()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(probe, flags, 0o600, dir_fd=directory_fd)
    except OSError as exc:
        if exc.errno in files.NO_ROOM:  # `check_room` reports a full filesystem
            return True
        raise _not_writable(path, exc) from exc
    try:
        os.unlink(probe, dir_fd=directory_fd)
        is_gone = os.fstat(fd).st_nlink == 0
        problem = leases.why_not(fd)
    except OSError as exc:
        raise _not_writable(path, exc) from exc
    finally:
        os.close(fd)
    if not is_gone:
        raise ConfigError(
            f"{path}: a removed file keeps its link count there, so nothing could be "
            "invalidated; set CACHESVC_RUNTIME_DIR to a directory in a tmpfs of this host"
        )
    if problem is not None:
        log.warning("l1_readers_cannot_be_seen", error=problem, consequence=_UNSEEN)
    return problem is None


def check_room(path: Path, directory_fd: int, max_bytes: int) -> None:
    """Raise ConfigError if the filesystem has less for L1 than its limit."""
    available = files.free_bytes(directory_fd)
    if available < max_bytes:
        raise ConfigError(
            f"{setting('l1.max_bytes')} is {units.size_text(max_bytes)}, but {available:,} bytes "
            f"are free in {path}. Give the filesystem more room (Docker: --shm-size), lower it, "
            "or set CACHESVC_L1__ALLOW_HEAP=true to serve what does not fit from the heap"
        )


def _not_writable(path: Path, exc: OSError, what: str = "no file can be made there") -> ConfigError:
    return ConfigError(
        f"{path}: {what}: {exc.strerror}; let uid {os.geteuid()} write there (its mode, "
        "chattr -a, a read-only mount), or set another CACHESVC_RUNTIME_DIR"
    )
