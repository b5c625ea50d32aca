"""Does the kernel allow the memory and the threads that these settings need?

The limits are those of the running daemon's cgroup; without a daemon, those of doctor's own cgroup,
which is the same if a service manager or a container starts both.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator

from cachesvc.cli.conventions import output
from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.cli.doctor.places import daemon_pid
from cachesvc.tiers import host_limits
from cachesvc.tiers.host_limits import Limit, MemoryNeeds

# 30 threads were seen with two cores; gRPC and the workers take some for each core.
_THREADS, _THREADS_PER_CORE = 48, 4
_RAISE = (
    "raise the limit (MemoryMax= in the systemd unit, --memory in Docker, "
    "resources.limits.memory in Kubernetes), or lower CACHESVC_L1__MAX_BYTES"
)


def check_memory(patient: Patient) -> Iterator[Finding]:
    """Check the cgroup's limit: L1's pages are charged to it, and the kernel kills at the limit."""
    check, needs = "limits.memory", MemoryNeeds.of(patient.settings)
    limit = host_limits.memory_limit(_daemon(patient), patient.filesystem)
    if limit is None:
        yield ok(check, "no cgroup limits the memory")
        return
    state = (
        f"{limit.group} allows {output.size_text(limit.value)}; a full L1 of "
        f"{output.size_text(patient.settings.l1.max_bytes)} needs "
        f"{output.size_text(needs.least_bytes)} for the idle daemon, and "
        f"{output.size_text(needs.working_bytes)} with the most calls under way"
    )
    if limit.value < needs.least_bytes:
        yield error(check, f"{state}: the kernel kills the daemon before L1 is full", _RAISE)
    elif limit.value < needs.working_bytes:
        yield warning(check, f"{state}: under load the kernel may kill the daemon", _RAISE)
    else:
        yield ok(check, state)


def check_threads(patient: Patient) -> Iterator[Finding]:
    """Check the limits on threads: reads, writes and syncs all need a thread."""
    check, needed = "limits.threads", _THREADS + _THREADS_PER_CORE * (os.cpu_count() or 1)
    group = host_limits.threads_limit(_daemon(patient), patient.filesystem)
    # RLIMIT_NPROC does not limit root.
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1] if patient.uid != 0 else -1
    allowed = [_Allowed(group)] if group is not None else []
    if most != resource.RLIM_INFINITY:
        allowed.append(_Allowed(None, most))
    least = min(allowed, key=lambda one: one.value, default=None)
    if least is None:
        yield ok(check, "nothing limits the threads")
    elif least.value < needed:
        yield warning(
            check,
            f"{least.where} allows {least.value} threads, and the daemon may need {needed}",
            "raise the limit: TasksMax= or LimitNPROC= in the systemd unit, --pids-limit in Docker",
        )
    else:
        yield ok(check, f"{needed} may be needed, {least.value} are allowed ({least.where})")


class _Allowed:
    def __init__(self, group: Limit | None, most: int = 0) -> None:
        self.value = most if group is None else group.value
        self.where = "RLIMIT_NPROC" if group is None else str(group.group)


def _daemon(patient: Patient) -> int | None:
    return daemon_pid(patient.settings.socket_path)
