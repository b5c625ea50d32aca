"""Checks whether a directory can be the daemon's, and finds the daemon that has it."""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.tiers.mounts import nearest_existing

_PEER = struct.Struct("3i")


def unnamed_file(folder: Path) -> int:
    """Open a file that no other process sees and that ends when it is closed."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:
        fd, name = tempfile.mkstemp(prefix=".cachesvc-doctor-", dir=folder)
        Path(name).unlink()
        return fd


def daemon_pid(path: Path) -> int | None:
    """Return the pid that listens on a unix socket; None if no process does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    pid: int = _PEER.unpack(peer)[0]
    return pid


def holder_of(directory: Path, locks: Path = Path("/proc/locks")) -> bool:
    """Return whether a process of this host holds a daemon's lock on `directory`.

    The check takes no lock: a daemon that starts at that moment would be refused.
    """
    try:
        status = directory.stat()
        lines = locks.read_text().splitlines()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    wanted = f"{device}:{status.st_ino}"
    return any(line.split()[1] == "FLOCK" and wanted in line.split() for line in lines)


def examine_directory(
    patient: Patient, check: str, path: Path, *, mode: int, setting: str
) -> Iterator[Finding]:
    """Check that `path` can be the daemon's: no link, its own, closed to other users."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        yield from _can_be_made(check, path, setting)
        return
    if not stat.S_ISDIR(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
        yield error(
            check,
            f"{path} is {what}, which the daemon refuses",
            f"set {setting} to another directory",
        )
        return
    if found.st_uid != patient.uid:
        yield error(
            check,
            f"{path} belongs to uid {found.st_uid}, but doctor runs as uid {patient.uid}: a daemon "
            "refuses a directory of another user",
            f"run doctor as the daemon's user, chown the directory, or set {setting} to another",
        )
        return
    beyond = stat.S_IMODE(found.st_mode) & ~mode
    if beyond:
        yield warning(
            check,
            f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: too many users have access",
            f"chmod {mode:04o} {path}",
        )
        return
    yield ok(check, f"{path} belongs to this user, mode {stat.S_IMODE(found.st_mode):04o}")


def _can_be_made(check: str, path: Path, setting: str) -> Iterator[Finding]:
    above = nearest_existing(path)
    if os.access(above, os.W_OK | os.X_OK):
        yield ok(check, f"the daemon will make {path}")
    else:
        yield error(
            check,
            f"{path} does not exist, and this user may not create it in {above}",
            f"create it for the daemon's user, or set {setting} to another directory",
        )
