"""Can L2 and the catalog be where the settings put them: which disk, how much, how durable?"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator

from cachesvc.cli.conventions import output
from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.cli.doctor.places import examine_directory
from cachesvc.config.values import ENV_PREFIX
from cachesvc.core import durable
from cachesvc.tiers import disk_size
from cachesvc.tiers.mounts import mount_of, nearest_existing

_ROOT = f"{ENV_PREFIX}L2__ROOT"
_STATE = f"{ENV_PREFIX}STATE_DIR"
_PROBE_BYTES = 1 << 20
# The smallest usual entry: a garment's text.
_SMALL_ENTRY_BYTES = 950_000
_OTHER_FILES = 32
# A commit waits for an fsync; NVMe takes a few ms, a network disk tens.
_SLOW_FSYNC_S = 0.2


def check_root(patient: Patient) -> Iterator[Finding]:
    root = patient.settings.l2.root
    yield from examine_directory(patient, "l2.directory", root, mode=0o755, setting=_ROOT)


def check_mount(patient: Patient) -> Iterator[Finding]:
    """Check the mount: if instance storage is not mounted, L2 silently fills the root disk."""
    root = patient.settings.l2.root
    mount = mount_of(root)
    if mount.filesystem == "tmpfs":
        yield warning(
            "l2.mount",
            f"{root} lies in a tmpfs ({mount.point}): L2 takes memory and is lost at a reboot",
            f"set {_ROOT} to a directory on NVMe",
        )
    elif str(mount.point) == "/":
        yield warning(
            "l2.mount",
            f"{root} lies on the root filesystem: the instance's NVMe may not be mounted, and "
            "L2 then fills the system's disk",
            f"mount the NVMe, which is empty after a stop of the instance, or set {_ROOT}",
        )
    elif "ro" in mount.options:
        yield error("l2.mount", f"{mount.point} is mounted read-only", "mount it read-write")
    else:
        yield ok("l2.mount", f"{root} lies on {mount.filesystem}, mounted at {mount.point}")


def check_space(patient: Patient) -> Iterator[Finding]:
    """Compare the limit and the free-space floor with the filesystem."""
    l2 = patient.settings.l2
    usage = os.statvfs(nearest_existing(l2.root))
    free, total = usage.f_bavail * usage.f_frsize, usage.f_blocks * usage.f_frsize
    state = (
        f"{output.size_text(free)} of {output.size_text(total)} free; L2's limit is "
        f"{output.size_text(l2.max_bytes)}, its floor {output.size_text(l2.free_floor_bytes)}"
    )
    if refused := disk_size.problems(l2):
        yield error(
            "l2.space",
            f"the daemon refuses to start: {'; '.join(refused)}",
            "lower that setting, or set CACHESVC_L2__ROOT to a directory on a larger disk",
        )
    elif free <= l2.free_floor_bytes:
        yield error(
            "l2.space",
            f"{state}: below the floor L2 admits nothing and evicts what it has",
            "free some space, or lower CACHESVC_L2__FREE_FLOOR_BYTES",
        )
    elif total < l2.max_bytes + l2.free_floor_bytes:
        yield warning(
            "l2.space",
            f"{state}: the disk is smaller than limit and floor together, so the floor limits L2",
            f"lower CACHESVC_L2__MAX_BYTES to {max(0, total - l2.free_floor_bytes)} or less",
        )
    else:
        yield ok("l2.space", state)


def check_inodes(patient: Patient) -> Iterator[Finding]:
    """Check free inodes: an entry takes one inode, and its directory another."""
    settings = patient.settings
    kinds = settings.build_kinds().all
    in_memory = sum(kind.max_entries * len(kind.namespaces) for kind in kinds)
    for check, path, needed in (
        ("runtime.inodes", settings.runtime_dir, in_memory + _OTHER_FILES),
        ("l2.inodes", settings.l2.root, 2 * settings.l2.max_bytes // _SMALL_ENTRY_BYTES),
    ):
        usage = os.statvfs(nearest_existing(path))
        if not usage.f_files or usage.f_favail >= needed:  # btrfs makes inodes on demand
            yield ok(
                check,
                f"{usage.f_favail:,} inodes are free"
                if usage.f_files
                else "inodes are not limited",
            )
        else:
            yield warning(
                check,
                f"{path}: {usage.f_favail:,} of {usage.f_files:,} inodes are free, and a "
                f"full cache may need {needed:,}: the filesystem may be full before the cache",
                "delete unused files, or make a filesystem with more inodes (mkfs -N; for a tmpfs "
                "mount -o nr_inodes=)",
            )


def check_fsync(patient: Patient) -> Iterator[Finding]:
    """Write and sync 1 MiB, as for an entry."""
    folder = nearest_existing(patient.settings.l2.root)
    begun = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            durable.write_all(file.fileno(), bytes(_PROBE_BYTES))
            os.fsync(file.fileno())
        directory_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory_fd)
        finally:
            os.close(directory_fd)
    except OSError as exc:
        yield error(
            "l2.fsync",
            f"{folder}: no file can be written and synced: {exc.strerror}",
            f"let the daemon's user write there, or set {_ROOT} to another directory",
        )
        return
    took_s = time.monotonic() - begun
    took = f"1 MiB was durable in {folder} after {took_s * 1e3:.0f} ms"
    if took_s > _SLOW_FSYNC_S:
        yield warning(
            "l2.fsync",
            f"{took}: Puts wait for this sync, and commits queue behind it",
            "put L2 on local NVMe; check what else uses the disk",
        )
    else:
        yield ok("l2.fsync", took)


def check_state_directory(patient: Patient) -> Iterator[Finding]:
    path = patient.settings.state_dir
    yield from examine_directory(patient, "state.directory", path, mode=0o750, setting=_STATE)


def check_state_place(patient: Patient) -> Iterator[Finding]:
    """Check that the catalog survives a reboot."""
    state_dir = patient.settings.state_dir
    if mount_of(state_dir).filesystem == "tmpfs":
        yield warning(
            "state.place",
            f"{state_dir} lies in a tmpfs: after a reboot L2 starts empty, and the daemon no "
            "longer knows what was invalidated when it judges Puts of older sources",
            f"set {_STATE} to a directory on a disk",
        )
    else:
        yield ok("state.place", f"{state_dir} is on a disk")
