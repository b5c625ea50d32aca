"""Where the daemon listens: an argument, otherwise the daemon's own variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cachesvc_client._credentials import SCHEMES
from cachesvc_client.errors import InvalidSettings
from cachesvc_format.paths import problem_of, problem_of_whole

DEFAULT_RUNTIME_DIR = "/dev/shm/cachesvc"  # noqa: S108 - the daemon's own, not a temporary file
RUNTIME_DIR = "CACHESVC_RUNTIME_DIR"
SOCKET = "CACHESVC_GRPC__SOCKET"
_HOST_AND_PORT = re.compile(r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}")
_OTHER_SCHEME = re.compile(r"(?:[a-z][a-z0-9+.]*:///?|unix-abstract:|vsock:).+")


def resolve(target: str | None, environment: Mapping[str, str]) -> str:
    """Return a gRPC target for a socket path, `unix:/path`, `host:port` or None.

    None is `CACHESVC_GRPC__SOCKET`, otherwise `cachesvc.sock` in `CACHESVC_RUNTIME_DIR`. A relative
    path in an argument is this process's own. Raises InvalidSettings.
    """
    if target is None:
        named = _named(SOCKET, environment)
        runtime_dir = _named(RUNTIME_DIR, environment) or DEFAULT_RUNTIME_DIR
        return f"unix:{named or f'{runtime_dir}/cachesvc.sock'}"
    path = _path_of(target)
    if path is not None:
        _refuse(f"target {target!r}", problem_of(path))
        return f"unix:{Path(path).absolute()}"
    address = target
    for scheme in SCHEMES:
        address = address.removeprefix(scheme)
    if _HOST_AND_PORT.fullmatch(address) or _OTHER_SCHEME.fullmatch(target):
        return target
    _refuse(f"target {target!r}", "it is a socket's path (with a /), unix:/path or host:port")
    raise AssertionError("refused")


def admin_socket(target: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the path of the admin socket of the target's daemon; None for TCP.

    It is never another daemon's: for a named socket it is in that socket's directory.
    """
    if target is None and (directory := _named(RUNTIME_DIR, environment)):
        return f"{directory}/admin.sock"
    resolved = resolve(target, environment)
    path = resolved.removeprefix("unix:")
    return None if path == resolved else f"{path.rpartition('/')[0]}/admin.sock"


def runtime_directory(target: str, environment: Mapping[str, str]) -> tuple[str | None, bool]:
    """Return where to look for shared files, and whether to look only there.

    `CACHESVC_RUNTIME_DIR` is final: in a container the daemon's own path may be another directory.
    Without it, the socket's directory is tried before the daemon is asked.
    """
    named = _named(RUNTIME_DIR, environment)
    if named:
        return named, True
    path = target.removeprefix("unix:")
    return (path.rpartition("/")[0] or None, False) if path != target else (None, False)


def _path_of(target: str) -> str | None:
    """Return a socket's path, or None for a target of another kind."""
    if target.startswith("unix:"):
        return target.removeprefix("unix:")
    if target.startswith("~"):
        return target  # to be refused as a path
    is_other = target.startswith(SCHEMES) or _OTHER_SCHEME.fullmatch(target)
    return target if "/" in target and not is_other else None


def _named(variable: str, environment: Mapping[str, str]) -> str:
    """Return a variable's path; empty = not set. The daemon refuses the same paths."""
    value = environment.get(variable, "")
    if value:
        _refuse(f"{variable}={value!r}", problem_of_whole(value))
    return value


def _refuse(what: str, problem: str) -> None:
    if problem:
        raise InvalidSettings(f"{what}: {problem}", reason="TARGET_INVALID")
