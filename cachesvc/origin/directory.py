"""How does a folder stand in for S3, with the same keys?

The demo and laptops use it. A key's path is opened folder by folder and no symbolic
link below the root is followed, so no key leads outside the root. The etag is a hash
of the content: an inode and its times may recur within one clock tick, and a changed
object with its old etag would count as current for ever.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TypeVar

import xxhash

from cachesvc.config import OriginSettings
from cachesvc.core import durable
from cachesvc.core.errors import OriginDenied, OriginUnavailable
from cachesvc.core.origin import DatedOrigin, OriginObject, OriginStamp
from cachesvc.core.pools import started_pool
from cachesvc.core.tensors import Buffer
from cachesvc.origin import reasons, whole_reads

# Folder of the unfinished writes, until they are renamed. Hidden, and refused as a key.
_UNFINISHED = ".cachesvc-unfinished"
# A laptop's disk gains nothing from more threads; a hung disk holds this pool's threads only.
_THREADS = 8
_MAX_NAME_BYTES = 255
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO that lies in the folder must not hang.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_Result = TypeVar("_Result")


def from_settings(settings: OriginSettings, max_object_bytes: int) -> DatedOrigin:
    """Return the origin of the settings' folder, not started yet."""
    assert settings.path is not None  # the settings were checked
    return DirectoryOrigin(
        settings.path,
        added_latency_s=settings.added_latency_ms / 1000,
        deadline_s=settings.deadline_s,
        max_object_bytes=max_object_bytes,
    )


class DirectoryOrigin:
    """A folder of objects. See `core.origin.Origin` for the contract.

    Each read and write first waits for `added_latency_s`, so that on a laptop a fill is
    slower than a hit, as with S3. `deadline_s` bounds one call, its wait for a thread and
    that latency included.
    """

    def __init__(
        self,
        root: Path,
        *,
        added_latency_s: float = 0.0,
        deadline_s: float = reasons.DEFAULT_DEADLINE_S,
        max_object_bytes: int = reasons.DEFAULT_MAX_OBJECT_BYTES,
    ) -> None:
        self._root = root
        self._added_latency_s = added_latency_s
        self._deadline_s = deadline_s
        self._max_object_bytes = max_object_bytes
        self._threads = started_pool(_THREADS, "origin-directory")
        self._closed = False

    async def start(self) -> None:
        """Unlink the unfinished files of killed writers; those of live writers stay."""
        await self._run(self._remove_unfinished)

    async def read(self, object_key: str) -> OriginObject:
        """Return the object.

        Also raises OriginDataCorrupt, reason OBJECT_TOO_LARGE, before reading any byte,
        and OriginUnavailable, reason ORIGIN_OBJECT_CHANGING, if another process keeps
        writing the file in place.
        """
        names, watch = _names_of(object_key), whole_reads.Watch()
        latency_s = self._added_latency_s
        for wait_s in (*whole_reads.WAITS_S, None):
            try:
                return await self._run(
                    lambda: self._read_file(object_key, names, watch), latency_s=latency_s
                )
            except (FileNotFoundError, NotADirectoryError) as exc:
                raise reasons.no_such_object(object_key) from exc
            except whole_reads.Changing as exc:
                if wait_s is None:
                    raise reasons.changing() from exc
                # Only the first attempt waits for the added latency.
                latency_s = wait_s
        raise AssertionError

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        """Return the object, or its stamp alone if the content is the same."""
        found = await self.read(stamp.object_key)
        return found.stamp if found.stamp.etag == stamp.etag else found

    async def stamp(self, object_key: str) -> OriginStamp:
        """Return the object's stamp. The etag is a hash of the content, so the content is read."""
        return (await self.read(object_key)).stamp

    async def read_start(self, object_key: str, size_bytes: int) -> bytes:
        """Return the object's first bytes, also while another process writes the file."""
        names = _names_of(object_key)
        try:
            return await self._run(
                lambda: self._read_file_start(names, size_bytes), latency_s=self._added_latency_s
            )
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise reasons.no_such_object(object_key) from exc

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        """Replace the object durably.

        If cancelled, the object may still be replaced: the thread goes on.
        """
        names = _names_of(object_key)
        try:
            return await self._run(
                lambda: self._write_file(object_key, names, data), latency_s=self._added_latency_s
            )
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as exc:
            raise _key_refused("a folder lies where an object should, or the reverse") from exc
        except FileNotFoundError as exc:
            raise OriginUnavailable(
                "the origin's folder changed during a write", reason=reasons.SERVER_ERROR
            ) from exc

    async def check(self) -> None:
        """Return if the folder exists and may be read; raise otherwise."""
        await self._run(lambda: os.close(self._opened_root()))

    async def close(self) -> None:
        """Refuse new calls. Calls in flight end by themselves."""
        self._closed = True
        # Queued work is not cancelled: its caller, which was not cancelled, would get a
        # CancelledError.
        self._threads.shutdown(wait=False)

    async def _run(self, work: Callable[[], _Result], latency_s: float = 0.0) -> _Result:
        """Do `work` in our own threads; FileNotFoundError and similar errors pass unchanged."""
        if self._closed:
            raise reasons.closed()
        try:
            async with asyncio.timeout(self._deadline_s):
                await asyncio.sleep(latency_s)
                if self._closed:
                    raise reasons.closed()
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TimeoutError as exc:
            raise reasons.timed_out(self._deadline_s) from exc
        except PermissionError as exc:
            raise OriginDenied(
                "the daemon may not read or write the origin's folder",
                reason=reasons.ACCESS_DENIED,
            ) from exc
        except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError):
            raise
        except (OSError, MemoryError, RuntimeError) as exc:
            if lack := reasons.lack_of_this_host(exc):
                raise lack from exc
            if not isinstance(exc, OSError):
                raise
            raise OriginUnavailable(
                f"the origin's folder failed: {os.strerror(exc.errno or 0)}",
                reason=reasons.SERVER_ERROR,
            ) from exc

    def _read_file(
        self, object_key: str, names: tuple[str, ...], watch: whole_reads.Watch
    ) -> OriginObject:
        def check_size(size_bytes: int) -> None:
            if size_bytes > self._max_object_bytes:
                raise reasons.too_large(object_key, size_bytes, self._max_object_bytes)

        with self._parent_of(names, create=False) as parent:
            file = _opened_file(names[-1], parent)
        # Our writes rename whole files; other programs may write in place.
        with file:
            data, status = whole_reads.read_whole(file, watch, check_size)
        return OriginObject(_stamp(object_key, data, status), data)

    def _read_file_start(self, names: tuple[str, ...], size_bytes: int) -> bytes:
        with self._parent_of(names, create=False) as parent:
            file = _opened_file(names[-1], parent)
        with file:
            return file.read(size_bytes)

    def _write_file(self, object_key: str, names: tuple[str, ...], data: Buffer) -> OriginStamp:
        with ExitStack() as held:
            parent = held.enter_context(self._parent_of(names, create=True))
            unfinished = held.enter_context(self._parent_of((_UNFINISHED, ""), create=True))
            name = secrets.token_hex(16)
            with durable.new_file(unfinished, name, 0o644) as descriptor:
                # The lock tells the start() of another daemon that this file is being written.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                durable.write(descriptor, data)
                written = os.fstat(descriptor)
                durable.move(name, unfinished, names[-1], parent)
            return _stamp(object_key, data, written)

    def _remove_unfinished(self) -> None:
        try:
            with (
                self._parent_of((_UNFINISHED, ""), create=False) as unfinished,
                os.scandir(unfinished) as entries,
            ):
                for entry in entries:
                    _remove_if_abandoned(entry.name, unfinished)
        except FileNotFoundError:
            return

    def _opened_root(self) -> int:
        try:
            # The root itself may be a link: that is the operator's choice.
            return os.open(self._root, _FOLDER & ~os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError) as exc:
            # Never "no such object": an unmounted disk has not lost its objects.
            raise OriginUnavailable(
                "the origin's folder does not exist", reason=reasons.UNREACHABLE
            ) from exc

    @contextmanager
    def _parent_of(self, names: tuple[str, ...], *, create: bool) -> Iterator[int]:
        """Open the folder that holds the last of `names`, one folder at a time."""
        folder = self._opened_root()
        try:
            for name in names[:-1]:
                if create:
                    durable.make_directory(folder, name, 0o755)
                below = _opened(name, _FOLDER, folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)


def _names_of(object_key: str) -> tuple[str, ...]:
    """Return the folders and the file of a key.

    Raises OriginDenied, reason ORIGIN_KEY_REFUSED, if S3 would take the key but a folder
    cannot: empty names, `.`, `..`, NUL, names over 255 bytes, our hidden folder.
    """
    names = tuple(object_key.split("/"))
    for name in names:
        if name in ("", ".", "..", _UNFINISHED) or "\0" in name:
            raise _key_refused("it has an empty or reserved part")
        if not _fits_a_file_name(name):
            raise _key_refused("a part of it is too long or not text")
    return names


def _fits_a_file_name(name: str) -> bool:
    try:
        return len(name.encode()) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _key_refused(why: str) -> OriginDenied:
    return OriginDenied(f"the key does not fit a folder: {why}", reason=reasons.KEY_REFUSED)


def _opened(name: str, flags: int, folder: int) -> int:
    """Open `name` in `folder`. A symbolic link is refused, wherever it leads."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except OSError as exc:
        # A link gives ELOOP, but with O_DIRECTORY ENOTDIR: the kernel checks that flag first.
        if exc.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(name, folder):
            raise _key_refused("a symbolic link lies on its way") from exc
        raise


def _opened_file(name: str, folder: int) -> FileIO:
    """Open a regular file. Raises FileNotFoundError for a folder, FIFO or socket: no object."""
    try:
        descriptor = _opened(name, _READ, folder)
    except OSError as exc:
        if exc.errno == errno.ENXIO:  # a socket, which cannot even be opened
            raise FileNotFoundError(errno.ENOENT, "not a regular file") from exc
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    return FileIO(descriptor)


def _is_link(name: str, folder: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _remove_if_abandoned(name: str, folder: int) -> None:
    """Unlink an unfinished file unless a live writer holds its lock."""
    try:
        file = _opened_file(name, folder)
    except FileNotFoundError:
        return  # renamed or unlinked since the listing, or not a file of ours
    with file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _stamp(object_key: str, data: Buffer, file: os.stat_result) -> OriginStamp:
    return OriginStamp(object_key, xxhash.xxh3_128_hexdigest(data), file.st_mtime)
