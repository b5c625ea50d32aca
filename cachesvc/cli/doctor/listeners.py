"""Checks the ports, the socket, the group and the descriptors."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.cli.doctor.memory import last_system_uid
from cachesvc.cli.doctor.places import daemon_pid, holder_of
from cachesvc.config.values import split_address
from cachesvc.core.access import Role

_LISTENING = "0A"
# The path in sockaddr_un, without its final NUL.
_MAX_SOCKET_PATH_BYTES = 107
_SHELLS_OF_NOBODY = ("nologin", "false", "sync")
# For sockets, the catalog, the origin's connections and the libraries.
_SPARE_DESCRIPTORS = 512


def check_socket(patient: Patient) -> Iterator[Finding]:
    check, path = "grpc.socket", patient.settings.socket_path
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH_BYTES:
        yield error(
            check,
            f"{path} is longer than a socket's path may be ({_MAX_SOCKET_PATH_BYTES} bytes)",
            "set CACHESVC_GRPC__SOCKET or CACHESVC_RUNTIME_DIR to a shorter path",
        )
        return
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        yield ok(check, f"the daemon will make {path}")
        return
    if not stat.S_ISSOCK(mode):
        yield error(
            check,
            f"{path} is not a socket",
            "remove it, or set CACHESVC_GRPC__SOCKET to another path",
        )
        return
    pid = daemon_pid(path)
    if pid is not None and not holder_of(patient.settings.runtime_dir):
        yield error(
            check,
            f"pid {pid} listens on {path}, but is no daemon with this runtime directory: the "
            "daemon refuses to start",
            "stop that process, or set CACHESVC_GRPC__SOCKET to another path",
        )
    elif pid is not None:
        yield ok(check, f"the daemon, pid {pid}, listens on {path}")
    else:
        yield ok(check, f"a daemon that died left {path}; the next start replaces it")


def check_http(patient: Patient) -> Iterator[Finding]:
    address = patient.settings.http.listen
    yield from _check_port(patient, "http.port", address, "CACHESVC_HTTP__LISTEN")


def check_grpc(patient: Patient) -> Iterator[Finding]:
    address = patient.settings.grpc.listen
    yield from _check_port(patient, "grpc.port", address, "CACHESVC_GRPC__LISTEN")


def check_loopback_role(patient: Patient) -> Iterator[Finding]:
    """Check the role on loopback, which every user of the host reaches."""
    check, role = "http.loopback_role", patient.settings.http.loopback_role
    others = other_people(patient)
    if not patient.settings.http.listen:
        yield ok(check, "HTTP is off")
    elif role is Role.ADMIN and others:
        yield warning(
            check,
            f"every user of this host may purge the cache over HTTP: {', '.join(others[:5])}",
            "set CACHESVC_HTTP__LOOPBACK_ROLE=observer, unless all of them should be able to",
        )
    else:
        yield ok(check, f"a caller on this host needs no credential for the role {role.value}")


def check_group(patient: Patient) -> Iterator[Finding]:
    check, name = "group", patient.settings.group
    if not name:
        yield ok(check, "no group is set: workers must run as the daemon's user or group")
        return
    try:
        found = grp.getgrnam(name)
    except KeyError:
        yield error(
            check,
            f"this host has no group {name!r}: the daemon refuses to start",
            f"groupadd --system {name}, or set CACHESVC_GROUP to another group",
        )
        return
    if patient.uid != 0 and found.gr_gid not in {os.getegid(), *os.getgroups()}:
        yield error(
            check,
            f"this user is not in group {name!r}, so the daemon may not give files to it",
            f"usermod --append --groups {name} USER (the daemon's), and start a new session",
        )
    else:
        yield ok(check, f"group {name!r} has gid {found.gr_gid}")


def check_descriptors(patient: Patient) -> Iterator[Finding]:
    """Check RLIMIT_NOFILE: two for each L1 entry, one for each caller and origin read."""
    settings = patient.settings
    kinds = settings.build_kinds().all
    entries = sum(kind.max_entries * len(kind.namespaces) for kind in kinds)
    needed = (
        2 * entries
        + settings.grpc.max_concurrent_streams
        + settings.http.max_connections
        + settings.origin.max_concurrent_reads
        + _SPARE_DESCRIPTORS
    )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < needed:
        yield warning(
            "descriptors",
            f"RLIMIT_NOFILE allows {most} descriptors, and {entries} entries in L1 with their "
            f"callers may need {needed}",
            "raise the limit: LimitNOFILE= in the systemd unit, --ulimit nofile= in Docker",
        )
    else:
        yield ok("descriptors", f"the daemon may need {needed} descriptors, and {most} are allowed")


def listener_of(port: int, proc: Path = Path("/proc")) -> tuple[int, str] | None:
    """Return pid and name of the listener on a TCP port; None if this user may not see it."""
    inodes = {inode for name in ("tcp", "tcp6") for inode in _listening(proc / "net" / name, port)}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in proc.iterdir():
        if folder.name.isdigit() and wanted & _open_files(folder):
            return int(folder.name), (folder / "comm").read_text().strip()
    return None


def other_people(patient: Patient) -> list[str]:
    """Return this host's users who could log in, without the daemon's user."""
    text = (patient.filesystem / "etc/passwd").read_text()
    found = []
    for line in text.splitlines():
        name, _, uid, *_, shell = line.split(":")
        is_person = int(uid) > last_system_uid(patient.filesystem) and name != "nobody"
        if is_person and int(uid) != patient.uid and not shell.endswith(_SHELLS_OF_NOBODY):
            found.append(name)
    return found


def _check_port(patient: Patient, check: str, address: str, setting: str) -> Iterator[Finding]:
    if not address:
        yield ok(check, "this listener is off")
        return
    host, port = split_address(address)
    problem = _bind_problem(host, port)
    if problem is None:
        yield ok(check, f"{address} is free")
        return
    if problem.errno != errno.EADDRINUSE:
        yield error(check, f"{address}: {problem.strerror}", f"set {setting} to another address")
        return
    who = listener_of(port)
    if who is not None and who[0] == daemon_pid(patient.settings.socket_path):
        yield ok(check, f"the daemon, pid {who[0]}, listens on {address}")
        return
    named = f"pid {who[0]} ({who[1]})" if who else "another user's process"
    yield error(
        check,
        f"{named} listens on {address}: the daemon refuses to start",
        f"stop that process, or set {setting} to another port",
    )


def _bind_problem(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # Bind as the daemon does: connections that are closing do not prevent it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            return exc
    return None


def _listening(table: Path, port: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _open_files(process: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
    return found
