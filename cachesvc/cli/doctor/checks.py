"""All checks, in the order in which an operator wants to read them."""

from __future__ import annotations

from collections.abc import Iterator

from cachesvc.cli.doctor import (
    catalog,
    credentials,
    limits,
    listeners,
    memory,
    names,
    origins,
    starts,
    storage,
    versions,
)
from cachesvc.cli.doctor.findings import Check, Finding, Patient, error

CHECKS: tuple[Check, ...] = (
    versions.check_libraries,
    versions.check_protobuf,
    versions.check_sqlite,
    versions.check_daemon,
    names.check_variables,
    memory.check_directory,
    memory.check_filesystem,
    memory.check_space,
    memory.check_physical_memory,
    memory.check_kernel,
    memory.check_hard_links,
    memory.check_remove_ipc,
    storage.check_root,
    storage.check_mount,
    storage.check_space,
    storage.check_inodes,
    storage.check_fsync,
    storage.check_state_directory,
    storage.check_state_place,
    catalog.check_clock,
    catalog.check_state,
    starts.check_separate,
    starts.check_directories,
    starts.check_names,
    starts.check_writing,
    origins.check_credentials,
    origins.check_access,
    origins.check_clock,
    listeners.check_socket,
    listeners.check_grpc,
    listeners.check_http,
    credentials.check_tls,
    credentials.check_grants,
    listeners.check_loopback_role,
    listeners.check_group,
    listeners.check_descriptors,
    limits.check_memory,
    limits.check_threads,
)


def findings(patient: Patient) -> Iterator[Finding]:
    """Yield what each check found. A check that fails with OSError yields an error."""
    for check in CHECKS:
        name = f"{check.__module__.rpartition('.')[2]}.{check.__name__.removeprefix('check_')}"
        try:
            yield from check(patient)
        except OSError as exc:
            where = f"{exc.filename}: " if exc.filename else ""
            yield error(
                name,
                f"this could not be checked: {where}{exc.strerror or exc}",
                "run doctor as the daemon's user",
            )
