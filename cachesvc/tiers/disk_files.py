"""L2's files: one immutable file for each entry, written so that a power cut leaves all or nothing.

`{root}/{namespace}/{id}/{generation}.safetensors`. The catalog's row is the entry: a
file without a row is litter. Every function here blocks and belongs in a worker
thread; errors are OSError, except where said.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cachesvc.core import durable
from cachesvc.core.checksum import Checksum
from cachesvc.core.errors import CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.core.tensors import Buffer
from cachesvc.tiers import files, quarantine
from cachesvc.tiers.anchors import Anchor
from cachesvc.tiers.directories import directory, made_directory
from cachesvc.tiers.quarantine import Quarantine, name_of
from cachesvc.tiers.witness import Witness
from cachesvc_format.names import is_id

SUFFIX = ".safetensors"
TEMPORARY = ".tmp"
WITNESS = ".catalog"
CHUNK_BYTES = 256 * 1024  # of the sizes tried for read + hash + write to tmpfs, the fastest
BLOCK_BYTES = 4096
_OURS = re.compile(r"[0-9]{1,20}\.safetensors")


class Location(NamedTuple):
    """Which file holds which generation of an entry."""

    key: EntryKey
    generation: int


def stored_bytes(size_bytes: int) -> int:
    """Return what a blob of `size_bytes` takes on disk."""
    return -(-size_bytes // BLOCK_BYTES) * BLOCK_BYTES


class DiskFiles:
    """The files under one L2 root, which this process has locked."""

    def __init__(self, root: Path, namespaces: tuple[str, ...]) -> None:
        """Open and lock the root, and make the namespaces' directories.

        Raises:
            ConfigError: not usable, or another daemon owns it.
        """
        self._root = root
        self._root_fd = files.open_directory(root, mode=0o750)
        files.lock_directory(self._root_fd, root)
        self.quarantined = Quarantine(self._root_fd)
        # A root that was used before had another daemon, which may have died just now.
        self.was_used = any(_exists(self._root_fd, name) for name in (TEMPORARY, quarantine.NAME))
        for name in (TEMPORARY, quarantine.NAME, *namespaces):
            os.close(files.open_directory(root / name, mode=0o750))
        self._remove_temporaries()

    @classmethod
    def beside_a_daemon(cls, root: Path) -> DiskFiles:
        """Open the root as it is, without its lock: for reading, `quarantine` and `close` only.

        Safe while a daemon owns the root: a file's name is never used twice, and a row
        whose file is gone is a miss. Raises OSError.
        """
        opened = cls.__new__(cls)
        opened._root = root
        opened._root_fd = os.open(root, files.DIRECTORY_FLAGS)
        opened.quarantined = Quarantine(opened._root_fd)
        opened.was_used = True
        return opened

    def anchor(self) -> Anchor:
        """Return the anchor that checks whether the root's name still leads here."""
        return Anchor(self._root, self._root_fd)

    def witness(self) -> Witness:
        """Return the witness, in this root, of the catalog's last commit. Raises OSError."""
        return Witness(self._root_fd, WITNESS, knows_one_catalog=True)

    def _remove_temporaries(self) -> None:
        with directory(self._root_fd, TEMPORARY) as fd:
            for name in os.listdir(fd):
                with contextlib.suppress(OSError):  # a directory, which is not ours
                    os.unlink(name, dir_fd=fd)

    def free_bytes(self) -> int:
        return files.free_bytes(self._root_fd)

    def write(self, location: Location, *parts: Buffer) -> None:
        """Store the file durably: content, name and directories survive a power cut.

        On an error nothing is left.
        """
        name = str(location.generation)
        # Make the directory again if it was deleted: no write could succeed without it.
        with (
            made_directory(self._root_fd, TEMPORARY) as temporary_fd,
            durable.new_file(temporary_fd, name, 0o640) as fd,
        ):
            durable.write(fd, *parts)
            self._rename_into_place(temporary_fd, name, location)

    def _rename_into_place(self, temporary_fd: int, temporary: str, location: Location) -> None:
        while True:
            try:
                self._try_to_rename(temporary_fd, temporary, location)
            except FileNotFoundError:
                if not _exists(temporary_fd, temporary):
                    raise
                # Its directory was removed with another generation: try again.
            else:
                return

    def _try_to_rename(self, temporary_fd: int, temporary: str, location: Location) -> None:
        key, name = location.key, f"{location.generation}{SUFFIX}"
        with (
            made_directory(self._root_fd, key.namespace) as namespace_fd,
            made_directory(namespace_fd, key.id) as id_fd,
        ):
            durable.move(temporary, temporary_fd, name, id_fd)

    def read_chunks(
        self,
        location: Location,
        size_bytes: int,
        expected_checksum: int,
        *,
        from_medium: bool = False,
    ) -> Iterator[memoryview]:
        """Yield the file in chunks, in order; the buffer that is hashed is the one yielded.

        A chunk is valid until the next chunk is asked for. `from_medium` reads the disk and
        not the page cache, and leaves nothing in the cache.

        Raises:
            FileNotFoundError: the row has no file.
            CorruptEntry: after the last chunk, or at a wrong length: what was yielded
                must not be served.
        """
        key, name = location.key, f"{location.generation}{SUFFIX}"
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with (
            directory(self._root_fd, key.namespace) as namespace_fd,
            directory(namespace_fd, key.id) as id_fd,
        ):
            fd = os.open(name, flags, dir_fd=id_fd)
        try:
            if not files.is_regular(fd) or os.fstat(fd).st_size != size_bytes:
                raise CorruptEntry("the file is not as long as its row says")
            if from_medium:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            yield from _hashed_chunks(fd, size_bytes, expected_checksum)
        finally:
            if from_medium:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    def remove(self, location: Location, *, durable: bool = False) -> None:
        """Unlink the file, and its directory if it is empty then. A missing file is fine.

        With `durable` the removal survives a power cut.
        """
        key = location.key
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            namespace_fd = stack.enter_context(directory(self._root_fd, key.namespace))
            id_fd = stack.enter_context(directory(namespace_fd, key.id))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{location.generation}{SUFFIX}", dir_fd=id_fd)
            if durable:
                os.fsync(id_fd)
            with contextlib.suppress(OSError):  # not empty, or a writer has just made it again
                os.rmdir(key.id, dir_fd=namespace_fd)

    def quarantine(self, location: Location) -> None:
        """Set a damaged file aside for a person to look at."""
        key = location.key
        name, source = name_of(key, location.generation), f"{location.generation}{SUFFIX}"
        # By descriptors: a link planted in place of a directory must not lead elsewhere.
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            namespace_fd = stack.enter_context(directory(self._root_fd, key.namespace))
            id_fd = stack.enter_context(directory(namespace_fd, key.id))
            self.quarantined.take(name, source, id_fd)
        self.remove(location)

    def walk(self, namespace: str) -> Iterator[Location | None]:
        """Yield what lies under `namespace`: our files, and None for each name that is not ours."""
        with directory(self._root_fd, namespace) as namespace_fd:
            for entry_id in os.listdir(namespace_fd):
                try:
                    yield from _listed(namespace_fd, EntryKey(namespace, entry_id))
                except OSError:  # a file, a link, or gone meanwhile
                    yield None

    def list_key(self, key: EntryKey) -> list[Location]:
        """Return the files of `key`, whether they have a row or not."""
        with contextlib.suppress(OSError), directory(self._root_fd, key.namespace) as fd:
            return [at for at in _listed(fd, key) if at is not None]
        return []

    def close(self) -> None:
        """Unlock the root. Nothing may be called afterwards."""
        os.close(self._root_fd)


def _listed(namespace_fd: int, key: EntryKey) -> list[Location | None]:
    with directory(namespace_fd, key.id) as id_fd:
        names = os.listdir(id_fd)
    return [
        Location(key, int(name.removesuffix(SUFFIX)))
        if is_id(key.id) and _OURS.fullmatch(name)
        else None
        for name in names
    ]


def _hashed_chunks(fd: int, size_bytes: int, expected_checksum: int) -> Iterator[memoryview]:
    digest = Checksum()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    left_bytes = size_bytes
    while left_bytes:
        count = os.readv(fd, [buffer[: min(CHUNK_BYTES, left_bytes)]])
        if count == 0:
            raise CorruptEntry("the file became shorter while it was read")
        left_bytes -= count
        digest.update(buffer[:count])
        yield buffer[:count]
    if digest.value() != expected_checksum:
        raise CorruptEntry("the file's bytes do not match its checksum")


def _exists(directory_fd: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
