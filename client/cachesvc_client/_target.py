"""Where the daemon listens: an argument, otherwise the daemon's own variables."""

from __future__ import annotations

from collections.abc import Mapping

DEFAULT_RUNTIME_DIR = "/dev/shm/cachesvc"  # noqa: S108 - the daemon's own, not a temporary file


def resolve(target: str | None, environment: Mapping[str, str]) -> str:
    """Return a gRPC target for a socket path, `unix:/path`, `host:port` or None.

    None is `CACHESVC_GRPC__SOCKET`, otherwise `cachesvc.sock` in `CACHESVC_RUNTIME_DIR`.
    """
    if target is None:
        runtime_dir = environment.get("CACHESVC_RUNTIME_DIR") or DEFAULT_RUNTIME_DIR
        target = environment.get("CACHESVC_GRPC__SOCKET") or f"{runtime_dir}/cachesvc.sock"
    return f"unix:{target}" if target.startswith(("/", ".")) else target


def admin_socket(target: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the path of the admin socket of the target's daemon; None for TCP.

    It is never another daemon's: for a named socket it is in that socket's directory.
    """
    if target is None:
        socket = environment.get("CACHESVC_GRPC__SOCKET", "")
        directory = environment.get("CACHESVC_RUNTIME_DIR") or socket.rpartition("/")[0]
        return f"{directory or DEFAULT_RUNTIME_DIR}/admin.sock"
    path = target.removeprefix("unix:")
    if path == target and not target.startswith(("/", ".")):
        return None
    return f"{path.rpartition('/')[0] or '.'}/admin.sock"


def runtime_directory(target: str, environment: Mapping[str, str]) -> tuple[str | None, bool]:
    """Return where to look for shared files, and whether to look only there.

    `CACHESVC_RUNTIME_DIR` is final: in a container the daemon's own path may be another directory.
    Without it, the socket's directory is tried before the daemon is asked.
    """
    named = environment.get("CACHESVC_RUNTIME_DIR")
    if named:
        return named, True
    path = target.removeprefix("unix:")
    return (path.rpartition("/")[0] or None, False) if path != target else (None, False)
