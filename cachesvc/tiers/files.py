"""The file operations that both tiers need, with their checks.

Directories are opened without following a symlink in the last component and
must be ours: a planted link or directory is refused, not used.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path

from cachesvc.core.errors import ConfigError

# Errors of a full filesystem or process: something has to leave first.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE)
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def open_directory(path: Path, *, mode: int, gid: int | None = None) -> int:
    """Create `path` if needed, durably, and return a descriptor of it.

    Parents are made with mode 0755. An existing directory keeps its mode.

    Raises:
        ConfigError: it is a symlink, no directory or not ours, or it cannot be made or given
            to `gid`.
    """
    try:
        _make_parents(path)
        created = _make_directory(path, mode)
        fd = os.open(path, DIRECTORY_FLAGS)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be used as a directory: {_why_not(path, exc)}") from exc
    owner = os.fstat(fd).st_uid
    if owner != os.geteuid():
        os.close(fd)
        raise ConfigError(
            f"{path}: belongs to uid {owner}, not to this daemon's {os.geteuid()}; "
            "change its owner or choose another directory"
        )
    if created:
        try:
            set_access(fd, mode, gid)
        except OSError as exc:
            os.close(fd)
            # Otherwise the next start would believe that the group has it.
            with contextlib.suppress(OSError):
                path.rmdir()
            raise ConfigError(
                f"{path}: cannot be given to group {gid}: {exc.strerror}; "
                "make the daemon's user a member of it, or set another CACHESVC_GROUP"
            ) from exc
    return fd


def _why_not(path: Path, exc: OSError) -> str | None:
    if path.is_symlink():  # whoever may replace it would move the daemon's files
        return f"it is a link to {os.readlink(path)}; name that directory itself"
    return exc.strerror


def set_access(fd: int, mode: int, gid: int | None) -> None:
    """Set who may use the file or directory, whatever the umask. Raises OSError."""
    os.fchmod(fd, mode)
    if gid is not None:
        os.fchown(fd, -1, gid)


def _make_parents(path: Path) -> None:
    for parent in reversed(path.parents):
        if not parent.exists():
            _make_directory(parent, 0o755)


def _make_directory(path: Path, mode: int) -> bool:
    """Return whether it had to be made; then its name survives a power cut.

    Otherwise a power cut could take everything below it, although that was synced.
    """
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return False
    with contextlib.suppress(PermissionError):  # a directory may be writable, but not readable
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    return True


def lock_directory(fd: int, path: Path) -> None:
    """Lock the directory itself for the life of `fd`: one daemon owns it.

    The lock is on the directory and not on a file in it, which a clean-up could delete.

    Raises:
        ConfigError: another daemon holds it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise ConfigError(
            f"{path}: another cachesvc daemon owns this directory; "
            "stop it, or give this one its own directories"
        ) from exc


def hard_links_are_protected(path: Path = Path("/proc/sys/fs/protected_hardlinks")) -> bool:
    """Return whether the kernel keeps others from linking files that they may only read."""
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False


def is_regular(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


def free_bytes(fd: int) -> int:
    """Return what an unprivileged writer may still use of the filesystem."""
    usage = os.fstatvfs(fd)
    return usage.f_bavail * usage.f_frsize
