"""Damaged files of L2, kept for a person to look at: at most 100, for a week, until an erase.

A file's name tells its key and not its owner, so an erase by owner removes all files.
Every function here blocks and belongs in a worker thread; errors are OSError.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope, ScopeKind
from cachesvc.tiers import files
from cachesvc.tiers.directories import made_directory

NAME = ".quarantine"
MAX_FILES = 100  # more would be a second, unbounded tier
# Counted from when a file was set aside. These are people's photos; a person looks within days.
KEPT_NS = 7 * 24 * 3600 * NS_PER_S
_OURS = re.compile(r"(?P<key>.+)\.[0-9]{1,20}")


def name_of(key: EntryKey, generation: int) -> str:
    return f"{key.namespace}.{key.id}.{generation}"


class Quarantine:
    """The directory `.quarantine` of one L2 root."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd

    def take(self, name: str, source: str, source_fd: int) -> None:
        """Move a file here from `source_fd`'s directory; the oldest give way."""
        # Make the directory again if it was deleted: damage must not stay among the entries.
        with made_directory(self._root_fd, NAME) as fd:
            os.rename(source, name, src_dir_fd=source_fd, dst_dir_fd=fd)
            _remove_oldest(fd)

    def trim(self, wall_ns: int) -> int:
        """Remove files that are too old or too many; return the bytes on disk of the rest."""
        with made_directory(self._root_fd, NAME) as fd:
            for name in _ours_in(fd):
                if _set_aside_ns(fd, name) < wall_ns - KEPT_NS:
                    _unlink(fd, name)
            _remove_oldest(fd)
            return sum(_stored_bytes(fd, name) for name in _ours_in(fd))

    def erase(self, scope: Scope) -> None:
        """Remove what `scope` may cover, durably."""
        with made_directory(self._root_fd, NAME) as fd:
            for name in _ours_in(fd):
                if _may_cover(scope, name):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=fd)
            os.fsync(fd)


def erase_catalog_set_aside(catalog: Path) -> None:
    """Remove a catalog that was set aside, durably: it holds the keys of all entries."""
    for path in _set_aside(catalog):
        path.unlink(missing_ok=True)
    fd = os.open(catalog.parent, files.DIRECTORY_FLAGS)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def trim_catalog_set_aside(catalog: Path, wall_ns: int) -> None:
    for path in _set_aside(catalog):
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_ctime_ns < wall_ns - KEPT_NS:
                path.unlink()


def _set_aside(catalog: Path) -> list[Path]:
    return [Path(f"{catalog}.damaged{suffix}") for suffix in ("", "-wal", "-shm")]


def _may_cover(scope: Scope, name: str) -> bool:
    match scope.kind:
        case ScopeKind.NAMESPACE:
            return name.startswith(f"{scope.value}.")
        case ScopeKind.OWNER | ScopeKind.EVERYTHING:
            return True
        case _:
            found = _OURS.fullmatch(name)
            keys = scope.keys() or ()
            return found is not None and found["key"] in {f"{k.namespace}.{k.id}" for k in keys}


def _ours_in(fd: int) -> list[str]:
    return [name for name in os.listdir(fd) if _OURS.fullmatch(name)]


def _remove_oldest(fd: int) -> None:
    names = sorted(_ours_in(fd), key=lambda name: _set_aside_ns(fd, name))
    for name in names[:-MAX_FILES]:
        _unlink(fd, name)


def _unlink(fd: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=fd)


def _set_aside_ns(fd: int, name: str) -> int:
    """Return when the file was renamed; 0 if it is gone: another thread may trim meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ctime_ns
    return 0


def _stored_bytes(fd: int, name: str) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_blocks * 512
    return 0
