"""Is a trusted daemon behind this unix socket, and if it cannot be reached, why?

gRPC connects by name at any time, so a check of the name would prove nothing about a later
connection:

    A: checks the socket: the daemon's | B: puts its own socket there | A: connects

So the checked socket is held open (O_PATH) and named by its descriptor: each connection of the
channel goes to this socket, or fails. Only a user itself can make a socket that the user owns,
so other users gain nothing by writing to the directory. A restarted daemon has another socket
and needs another door. The descriptor also lets a socket's path have any characters and length.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import struct
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cachesvc_client._descriptors import Owner, owner_of
from cachesvc_client._trust import Trust, name_of_user
from cachesvc_client.errors import CacheUnreachable

_PEER = struct.Struct("iII")  # struct ucred: pid, uid, gid
_PATH_ONLY = getattr(os, "O_PATH", 0) | os.O_CLOEXEC
# A starting daemon makes its socket and then gives it to the group. A refusal within this time of
# the socket's last change is worth a wait.
BEING_MADE_S = 2.0


class Nobody(Exception):
    """No daemon can answer right now; the text says why."""


class Identity(NamedTuple):
    """Identifies a socket. The time distinguishes two sockets that had the same inode number."""

    device: int
    inode: int
    changed_ns: int


class Door:
    """A way to a daemon. `target` is gRPC's, and valid for as long as the door is open."""

    def __init__(
        self, target: str, identity: Identity | None = None, socket: Owner | None = None
    ) -> None:
        self.target = target
        self.identity = identity
        self._socket = socket

    def close(self) -> None:
        """Release the socket. Repeating it is harmless."""
        if self._socket is not None:
            self._socket.close()


def open_door(path: str, trust: Trust) -> Door:
    """Return the door to the daemon that listens at `path`.

    Raises:
        Nobody: there is no socket, or no process listens on it.
        CacheUnreachable: `path` is not a trusted user's, no socket, or may not be used.
    """
    try:
        fd = os.open(path, _PATH_ONLY)
    except PermissionError as exc:
        raise _forbidden(path) from exc
    except OSError as exc:
        raise Nobody(f"{path}: {exc.strerror}") from exc
    with contextlib.ExitStack() as unless_opened:
        unless_opened.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISSOCK(status.st_mode):
            raise CacheUnreachable(
                f"{path} is not a socket; name the daemon's socket as the target or in "
                "CACHESVC_GRPC__SOCKET",
                reason="NOT_A_SOCKET",
            )
        # Without /proc only the name is left, and the schedule above is possible.
        held = f"/proc/self/fd/{fd}"
        address = held if Path(held).exists() else path
        trust.check(f"the socket {path}", status.st_uid)
        _check_directories(path, trust)
        _check_listener(path, address, trust)
        unless_opened.pop_all()
    # gRPC reads %20 in an address as a space.
    return Door(
        f"unix:{quote(address)}",
        Identity(status.st_dev, status.st_ino, status.st_ctime_ns),
        owner_of(fd),
    )


def _check_directories(path: str, trust: Trust) -> None:
    """Refuse a stranger's directory: a link in it could lead to any trusted user's socket."""
    for directory in {Path(path).absolute().parent, Path(path).resolve().parent}:
        with contextlib.suppress(FileNotFoundError):
            trust.check(f"the directory {directory}", directory.stat().st_uid)


def _check_listener(path: str, address: str, trust: Trust) -> None:
    """Connect once, and check the listener's user, which the kernel keeps since `listen`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except BlockingIOError:
            return  # the queue is full; the socket's owner was checked
        except PermissionError as exc:
            raise _forbidden(path) from exc
        except OSError as exc:
            raise Nobody(f"{path}: {exc.strerror}") from exc
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    trust.check(f"the process that listens at {path}", _PEER.unpack(peer)[1])


def _forbidden(path: str) -> CacheUnreachable | Nobody:
    """Return the error for a forbidden socket: which part is closed, its owner, what to do."""
    closed = _closed_directory(path)
    try:
        status = (closed or Path(path)).stat()
    except OSError:
        return CacheUnreachable(f"{path}: permission denied", reason="SOCKET_FORBIDDEN")
    what = "the socket" if closed is None else f"the directory {closed}"
    text = (
        f"{path}: permission denied; {what} belongs to user {name_of_user(status.st_uid)} and "
        f"group {_name_of_group(status.st_gid)}, mode {stat.S_IMODE(status.st_mode):04o}, and "
        f"this process is {name_of_user(os.geteuid())}; "
    ) + _way_in(status, stat.S_IWGRP if closed is None else stat.S_IXGRP)
    if 0 <= time.time() - status.st_ctime < BEING_MADE_S:
        return Nobody(text)  # worth a wait
    return CacheUnreachable(text, reason="SOCKET_FORBIDDEN")


def _way_in(status: os.stat_result, needed: int) -> str:
    group = _name_of_group(status.st_gid).partition(" ")[0]
    if not status.st_mode & needed:
        return "its group may not use it: run this process as its owner, or change the mode"
    if status.st_gid in (os.getegid(), *os.getgroups()):
        return "this process is in that group: is it confined by a security module?"
    return (
        f"this process is not in that group: usermod -aG {group} USER (a container: --group-add "
        f"{status.st_gid}), then start it again"
    )


def _closed_directory(path: str) -> Path | None:
    """Return the first directory on the way to `path` that this process may not enter."""
    for directory in reversed(Path(path).absolute().parents):
        if not os.access(directory, os.X_OK, effective_ids=True):
            return directory
    return None


def _name_of_group(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} (gid {gid})"
    except KeyError:
        return str(gid)
