"""Tells whether a catalog is the newest state that was acknowledged, or an older one.

A restored snapshot, or a log that a flipped bit cut short, is a sound catalog that has
forgotten invalidations. So each commit is noted outside the catalog before it is acknowledged:
in the runtime directory, which no snapshot of a disk holds, and in L2's root, in case only
`state_dir` is restored. Neither file is synced: later reads on the same boot see it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from cachesvc.core.checksum import checksum
from cachesvc.tiers import files

_MAGIC, _VERSION = b"cachesvc", 1
_RECORD = struct.Struct("<8sII16sQ")
_SUM = struct.Struct("<q")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Commit(NamedTuple):
    """A catalog, and how many commits it had."""

    catalog_id: bytes
    commits: int


class Witness:
    """One file that remembers the last commit. Errors are OSError.

    The file is opened for each commit: held open, it would keep a filesystem from being
    mounted read-only.
    """

    def __init__(self, directory_fd: int, name: str, *, knows_one_catalog: bool) -> None:
        """Make the file if there is none.

        With `knows_one_catalog` any other catalog counts as an older state: only the last
        catalog may serve the files of that directory.
        """
        self._knows_one_catalog = knows_one_catalog
        self._name = name
        self._directory_fd = os.dup(directory_fd)
        try:
            self._read()
        except BaseException:  # whatever failed, no other code closes the descriptor
            os.close(self._directory_fd)
            raise

    def contradicts(self, commit: Commit) -> bool:
        """Return whether a later commit was seen than `commit`, the last of a catalog."""
        seen = self._read()
        if seen is None:
            return False
        if seen.catalog_id != commit.catalog_id:
            return self._knows_one_catalog
        return seen.commits > commit.commits

    def _read(self) -> Commit | None:
        with self._opened() as fd:
            data = os.pread(fd, _RECORD.size + _SUM.size, 0)
        if len(data) != _RECORD.size + _SUM.size:
            return None
        record = data[: _RECORD.size]
        magic, version, _, *commit = _RECORD.unpack(record)
        is_ours = (magic, version) == (_MAGIC, _VERSION)
        # A spoilt record tells nothing.
        if not is_ours or _SUM.unpack(data[_RECORD.size :]) != (checksum(record),):
            return None
        return Commit(*commit)

    def note(self, commit: Commit) -> None:
        record = _RECORD.pack(_MAGIC, _VERSION, 0, *commit)
        with self._opened() as fd:
            os.pwrite(fd, record + _SUM.pack(checksum(record)), 0)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        fd = os.open(self._name, _FLAGS, 0o600, dir_fd=self._directory_fd)
        try:
            if not files.is_regular(fd):
                raise OSError(errno.EINVAL, f"{self._name} is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def close(self) -> None:
        os.close(self._directory_fd)
