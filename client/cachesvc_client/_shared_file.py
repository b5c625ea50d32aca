"""Opens the file that an answer names, and keeps it for the next Get."""

from __future__ import annotations

import contextlib
import os
import re

from cachesvc_client._descriptors import owner_of
from cachesvc_client._kept import Kept, KeptEntries, private_mapping
from cachesvc_client._opened import Opened, opened_file
from cachesvc_client._reading import SharedFile
from cachesvc_client.answers import EntryInfo
from cachesvc_client.errors import UnreadableAnswer
from cachesvc_format.control_page import L1_DIRECTORY
from cachesvc_proto.v1 import cache_pb2

_NAME = re.compile(f"{L1_DIRECTORY}/([A-Za-z0-9][A-Za-z0-9._-]*)")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def name_of(file: SharedFile) -> str:
    """Return the file's name in L1's directory. Raises UnreadableAnswer for any other path."""
    named = _NAME.fullmatch(file.name)
    if named is None:
        raise UnreadableAnswer("the shared file in the answer has a name that is not valid")
    return named[1]


def open_file(name: str, directory_fd: int) -> int:
    """Open a shared file by its name. Raises OSError.

    The daemon closes a file to readers right after unlinking it, and this `open` may come between:

        A: finds the name | D: unlinks, sets the mode to 0 | A: is refused -> looks again: no name
    """
    try:
        return os.open(name, _READ, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, _READ, dir_fd=directory_fd)


def keep_file(
    kept: KeptEntries,
    fd: int,
    info: EntryInfo | cache_pb2.EntryInfo,
    file: SharedFile,
    asked_ns: int,
) -> Opened | None:
    """Map the file, and keep it for the next Get; None if it was unlinked. Takes over `fd`.

    `asked_ns` (CLOCK_BOOTTIME) is from before the call. Raises UnreadableAnswer, OSError.

    A is this function, D the daemon. D unlinks before it punches, so a file that still has its name
    after the read was not erased before:

        A: opens | D: erases: unlinks, punches | A: reads zeros, for a header or for the fields
    """
    with contextlib.ExitStack() as unless_kept:
        unless_kept.callback(os.close, fd)
        try:
            # mmap also refuses a file that is too short; the header must cover every byte.
            entry = opened_file(info, fd, private_mapping(fd, info.size_bytes))
        except ValueError as exc:
            raise UnreadableAnswer("the shared file is shorter than the answer says") from exc
        except UnreadableAnswer:
            if os.fstat(fd).st_nlink:
                raise
            return None
        if not os.fstat(fd).st_nlink:
            return None
        unless_kept.pop_all()
    kept.keep(
        (info.key.namespace, info.key.id),
        Kept(
            file=owner_of(fd),
            info=info,
            layout=entry.layout,
            expires_ns=asked_ns + file.expires_in_ns,
            origin_ns=file.origin_ns,
            newest_needed_ns=file.origin_ns + file.grace_ns,
        ),
    )
    return entry
