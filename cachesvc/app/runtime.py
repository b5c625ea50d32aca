"""How does a daemon take its runtime directory: the group, the lock, the control page?"""

from __future__ import annotations

import grp
import os
from contextlib import AsyncExitStack
from pathlib import Path

from cachesvc.core.errors import ConfigError
from cachesvc.tiers import files
from cachesvc.tiers.control import ControlPage, replace_control_page


def gid_of(group: str) -> int | None:
    """Return the number of the workers' group; None = the daemon's own group."""
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise ConfigError(f"group (CACHESVC_GROUP): this host has no group {group!r}") from exc


def lock(path: Path, gid: int | None, stack: AsyncExitStack) -> int:
    """Lock the directory until the stack ends, and return its descriptor."""
    fd = files.open_directory(path, mode=0o750, gid=gid)
    stack.callback(os.close, fd)
    files.lock_directory(fd, path)
    return fd


def make_control_page(path: Path, runtime_fd: int, gid: int | None) -> ControlPage:
    """Return a new control page, which does not say serving yet."""
    try:
        return replace_control_page(runtime_fd, gid)
    except OSError as exc:
        raise ConfigError(f"{path}: the control page cannot be made: {exc.strerror}") from exc
