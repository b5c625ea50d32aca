"""Reads the entries in V2's directory, and never executes or changes them.

V2's layout: `{namespace}/{id}/{field}.png` for images, `{field}.pkl` for tensors. The tree is
foreign, so it is walked by descriptors, no link is followed, and only regular files of a limited
size are read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachesvc.cli.v2.outcomes import Outcome, Skipped
from cachesvc.core.clock import NS_PER_S
from cachesvc.core.kinds import Encoding, Field, Kind, Kinds

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SUFFIXES = {Encoding.PNG: ".png", Encoding.PICKLE: ".pkl"}


@dataclass(frozen=True, slots=True)
class Member:
    """One file: its bytes, and when V2 wrote it (wall time)."""

    data: bytes
    written_ns: int


class V2Directory:
    """A directory of V2's, opened for reading. Raises OSError."""

    def __init__(self, path: str, kinds: Kinds, max_member_bytes: int) -> None:
        # The directory itself may be a link: that is the operator's choice.
        self._fd = os.open(path, _FOLDER & ~os.O_NOFOLLOW)
        self._kinds = kinds
        self._max_member_bytes = max_member_bytes

    def close(self) -> None:
        os.close(self._fd)

    def namespaces(self) -> tuple[str, ...]:
        """Return which of our namespaces the directory has."""
        found = set(os.listdir(self._fd))
        return tuple(name for name in self._kinds.namespaces if name in found)

    def names(self, namespace: str) -> list[str]:
        """Return all names in a namespace's directory, sorted, also those that are no ids."""
        with _folder(self._fd, namespace) as fd:
            return sorted(os.listdir(fd))

    def read(self, namespace: str, name: str) -> dict[str, Member]:
        """Return every member of one entry. `name` is a checked id. Raises Skipped."""
        kind = self._kinds.of(namespace)
        try:
            with _folder(self._fd, namespace) as above, _folder(above, name) as fd:
                present = set(os.listdir(fd))
                _check_complete(kind, present)
                return {
                    field.name: self._read_member(fd, file_name(field)) for field in kind.fields
                }
        except NotADirectoryError as exc:
            raise Skipped(Outcome.NOT_V2) from exc
        except FileNotFoundError as exc:
            raise Skipped(Outcome.CHANGING) from exc
        except OSError as exc:
            raise Skipped(Outcome.UNREADABLE, exc.strerror or "") from exc

    def _read_member(self, folder_fd: int, name: str) -> Member:
        fd = os.open(name, _FILE, dir_fd=folder_fd)
        with open(fd, "rb", buffering=0) as file:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise Skipped(Outcome.UNREADABLE, f"{name} is not a regular file")
            if before.st_size > self._max_member_bytes:
                raise Skipped(Outcome.TOO_LARGE, name)
            data = file.read(self._max_member_bytes + 1) or b""
            after = os.fstat(fd)
        # V2 wrote its files in place: a file that grows is not complete yet.
        if len(data) != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise Skipped(Outcome.CHANGING, name)
        return Member(data, before.st_mtime_ns)


def file_name(field: Field) -> str:
    """Return V2's name for the file of a field."""
    return field.name + _SUFFIXES[field.encoding]


def source_ns(members: dict[str, Member], wall_ns: int, margin_s: float) -> int:
    """Return when the oldest member of an entry was written.

    Raises Skipped if a member is from the future or from before 1970, because its age is unknown;
    if V2 may be writing the entry just now; or if the files were not written together, because an
    interrupted save leaves members of two photos.
    """
    times = [member.written_ns for member in members.values()]
    oldest, newest, margin_ns = min(times), max(times), int(margin_s * NS_PER_S)
    if newest > wall_ns + NS_PER_S:
        raise Skipped(Outcome.FROM_THE_FUTURE)
    if oldest < 0:
        raise Skipped(Outcome.OUTDATED, "its files are dated before 1970")
    if newest > wall_ns - margin_ns:
        raise Skipped(Outcome.CHANGING, "its files were written just now")
    if newest - oldest > margin_ns:
        raise Skipped(
            Outcome.MIXED, f"its files were written {(newest - oldest) / NS_PER_S:.0f} s apart"
        )
    return oldest


def _check_complete(kind: Kind, present: set[str]) -> None:
    missing = [name for name in map(file_name, kind.fields) if name not in present]
    if len(missing) == len(kind.fields):
        raise Skipped(Outcome.NOT_V2)
    if missing:
        raise Skipped(Outcome.INCOMPLETE, f"without {', '.join(missing)}")


@contextmanager
def _folder(parent_fd: int, name: str) -> Iterator[int]:
    fd = os.open(name, _FOLDER, dir_fd=parent_fd)
    try:
        yield fd
    finally:
        os.close(fd)
