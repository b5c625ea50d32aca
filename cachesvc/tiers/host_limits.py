"""Reads how much memory and how many threads the kernel allows the daemon's cgroup.

The daemon writes L1's pages first, so they are charged to its cgroup: if the cgroup has less
than L1 may take, the kernel ends the daemon while L1 fills. The limits of groups above also
count. Both versions of cgroups are read, as a container or a host shows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from cachesvc.config import Settings
from cachesvc.config.messages import setting
from cachesvc.core import units

log = structlog.get_logger()
_MIB = 1 << 20
# A daemon without entries has 102 MB.
PROCESS_BYTES = 128 * _MIB
# A person of three images and a pose. A fill holds its objects, its tensors and its blob; a Put
# holds the received bytes twice.
_ENTRY_BYTES = 10 * _MIB
_COPIES_OF_FILL, _COPIES_OF_PUT = 3, 2
# Version 1 writes "no limit" as the largest number of whole pages.
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit of one group with all groups below it. `group` is its directory."""

    value: int
    group: Path


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """`least_bytes`: L1 and the bare process. `working_bytes`: also fills, Puts and L2 writes."""

    least_bytes: int
    working_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> MemoryNeeds:
        limits = settings.limits
        least_bytes = settings.l1.max_bytes + PROCESS_BYTES
        under_way = (
            limits.max_concurrent_fills * _COPIES_OF_FILL
            + limits.max_concurrent_puts * _COPIES_OF_PUT
        )
        beside = settings.l2.max_pending_bytes + under_way * _ENTRY_BYTES
        return cls(least_bytes, least_bytes + beside)


def problems(settings: Settings, limit: Limit | None) -> list[str]:
    """Return a sentence if L1 alone would exceed the limit: the kernel ends the daemon then."""
    if limit is None or settings.l1.max_bytes < limit.value:
        return []
    text = (
        f"{setting('l1.max_bytes')} is {units.size_text(settings.l1.max_bytes)}, but the memory "
        f"limit of {limit.group} is {units.size_text(limit.value)}, and L1 counts against it: "
        "lower the setting or raise the limit"
    )
    return [text]


def warn(settings: Settings, limit: Limit | None) -> float:
    """Return the limit, infinite if none, and log one that is too low for L1 and the process.

    The daemon starts nevertheless: L1 may never be full.
    """
    needs = MemoryNeeds.of(settings)
    if limit is None:
        return float("inf")
    said = {
        "limit_bytes": limit.value,
        "l1_max_bytes": settings.l1.max_bytes,
        "needed_bytes": needs.working_bytes,
        "cgroup": str(limit.group),
    }
    action = "raise the limit, or lower CACHESVC_L1__MAX_BYTES"
    if limit.value < needs.least_bytes:
        log.error(
            "memory_limit_too_low",
            problem="the kernel ends the daemon before L1 is full",
            action=action,
            **said,
        )
    elif limit.value < needs.working_bytes:
        log.warning(
            "memory_limit_low",
            problem="the kernel may end the daemon while L1 is full and many calls are under way",
            action=action,
            **said,
        )
    return limit.value


def memory_limit(pid: int | None = None, filesystem: Path = Path("/")) -> Limit | None:
    """Return the lowest limit of `pid`'s group and the groups above it, None if none.

    `pid` None is this process. A limit that cannot be read counts as none.
    """
    return _least("memory", "memory.max", "memory.limit_in_bytes", pid, filesystem)


def threads_limit(pid: int | None = None, filesystem: Path = Path("/")) -> Limit | None:
    """As `memory_limit`, for the number of threads and processes."""
    return _least("pids", "pids.max", "pids.max", pid, filesystem)


def _least(
    controller: str, name_v2: str, name_v1: str, pid: int | None, filesystem: Path
) -> Limit | None:
    proc = filesystem / "proc"
    try:
        lines = (proc / (str(pid) if pid else "self") / "cgroup").read_text().splitlines()
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    found = [
        Limit(value, group)
        for line in lines
        for mount in mounts
        for group in _groups(controller, line, mount, filesystem)
        for value in (_number(group / name_v2), _number(group / name_v1))
        if value is not None
    ]
    return min(found, key=lambda limit: limit.value, default=None)


def _groups(controller: str, line: str, mount: str, filesystem: Path) -> Iterator[Path]:
    """Yield the group in a line of /proc/PID/cgroup, and the groups above it in this mount."""
    _, controllers, path = line.split(":", 2)
    before, _, after = mount.partition(" - ")
    *_, root, point, _ = before.split()[:6]
    kind, _, options = after.split(maxsplit=2)
    if controllers:
        shows = kind == "cgroup" and controller in options.split(",")
        shows = shows and controller in controllers.split(",")
    else:
        shows = kind == "cgroup2"
    if not shows:
        return
    top = filesystem / point.lstrip("/")
    group = top / _below(path, root)
    # A container may see its own group as the top, under another name than the host's.
    if not group.is_dir():
        group = top
    yield group
    while group != top:
        group = group.parent
        yield group


def _below(path: str, root: str) -> str:
    """Return the part of a group's path below what is mounted."""
    parts, roots = path.strip("/").split("/"), [part for part in root.split("/") if part]
    if parts[: len(roots)] == roots:
        parts = parts[len(roots) :]
    return "" if ".." in parts else "/".join(parts)


def _number(path: Path) -> int | None:
    try:
        value = int(path.read_text())
    except (OSError, ValueError):  # not there, or `max`
        return None
    return value if value < _UNLIMITED else None
