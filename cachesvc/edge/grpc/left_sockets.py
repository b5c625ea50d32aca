"""Is a socket that is in the way a dead daemon's, so that it may be removed?"""

from __future__ import annotations

import os
import pwd
import socket
import stat
from pathlib import Path

from cachesvc.core.errors import ConfigError


def make_way(path: Path) -> None:
    """Remove the socket of a daemon that died, and make the directory if there is none.

    Raises:
        ConfigError: a daemon listens at `path`, or something else is there, or the directory
            cannot be made.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise ConfigError(f"{path}: its directory cannot be made: {exc.strerror}") from exc
        return
    except OSError as exc:
        raise ConfigError(
            f"{path}: cannot be examined: {exc.strerror}; see CACHESVC_GRPC__SOCKET"
        ) from exc
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path}: not a socket; remove it or set CACHESVC_GRPC__SOCKET")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            _remove_left(path)
            return
        except OSError as exc:
            raise ConfigError(
                f"{path}: a socket of {_owner_of(path)} is there, which this user may not open: "
                f"{exc.strerror}. If no daemon of that user runs, remove it; otherwise set "
                "CACHESVC_RUNTIME_DIR"
            ) from exc
    raise ConfigError(f"{path}: another daemon listens there; see CACHESVC_GRPC__SOCKET")


def _remove_left(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{path}: a socket of {_owner_of(path)} that nobody listens on cannot be removed: "
            f"{exc.strerror}. Remove it as that user or as root"
        ) from exc


def _owner_of(path: Path) -> str:
    try:
        uid = path.lstat().st_uid
    except OSError:
        return "another user"
    try:
        return f"the user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"the user {uid}"
