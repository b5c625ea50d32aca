"""Checks the libraries, and whether this program and the daemon match."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from google.protobuf.internal import api_implementation

from cachesvc import __version__
from cachesvc.cli.conventions.installed import CONTRACT, LIBRARIES, installed
from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.cli.doctor.places import daemon_pid
from cachesvc_client import CacheClient, CacheServiceError

# The first with RETURNING, which the catalog uses.
_SQLITE = (3, 35, 0)


def check_libraries(_: Patient) -> Iterator[Finding]:
    missing = [name for name in LIBRARIES if installed(name) is None]
    if missing:
        yield error(
            "libraries",
            f"these libraries are missing: {', '.join(missing)}",
            "install the wheels of the daemon and the client again, or requirements.lock",
        )
    else:
        named = (f"{name} {installed(name)}" for name in ("grpcio", "protobuf", "aioboto3"))
        yield ok("libraries", ", ".join(named))


def check_protobuf(_: Patient) -> Iterator[Finding]:
    """Check for upb: the pure Python implementation is slow, and has no limit on nesting."""
    found = api_implementation.Type()
    if found == "upb":
        yield ok("protobuf", "the C implementation, upb, is in use")
    else:
        yield error(
            "protobuf",
            f"the {found} implementation is in use, which deeply nested messages can crash",
            "unset PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION; install a protobuf wheel",
        )


def check_sqlite(_: Patient) -> Iterator[Finding]:
    if sqlite3.sqlite_version_info >= _SQLITE:
        yield ok("sqlite", sqlite3.sqlite_version)
    else:
        yield error(
            "sqlite",
            f"{sqlite3.sqlite_version}: the catalog needs 3.35 for RETURNING",
            "use a Python with a newer SQLite",
        )


def check_daemon(patient: Patient) -> Iterator[Finding]:
    """Compare versions: a program and a daemon one version apart understand each other."""
    check, path = "daemon", patient.settings.socket_path
    if daemon_pid(path) is None:
        yield ok(check, "no daemon runs with these settings")
        return
    try:
        with CacheClient(str(path), timeout_s=patient.deadline_s, wait_s=0.0) as client:
            running = client.stats().version
    except CacheServiceError as exc:
        yield warning(
            check,
            f"a process listens on {path}, but: {exc}",
            "check whether that process is a cachesvc daemon",
        )
        return
    if _minor(running) == _minor(__version__):
        yield ok(
            check,
            f"the daemon is {running}, this program is {__version__}, the contract is {CONTRACT}",
        )
    else:
        yield warning(
            check,
            f"the daemon is {running}, this program is {__version__}",
            "restart the daemon; versions more than one apart may not understand each other",
        )


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
