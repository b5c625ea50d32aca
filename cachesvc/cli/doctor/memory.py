"""Can L1 be where the settings put it: is it memory, is it enough, do its files stay?"""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from cachesvc.cli.conventions import output
from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.cli.doctor.places import (
    daemon_pid,
    examine_directory,
    unnamed_file,
)
from cachesvc.config import Settings
from cachesvc.config.values import ENV_PREFIX
from cachesvc.core import durable
from cachesvc.tiers import files, leases
from cachesvc.tiers.mounts import mount_of, nearest_existing
from cachesvc.tiers.shared_files import SharedFile
from cachesvc_format.control_page import L1_DIRECTORY

_SETTING = f"{ENV_PREFIX}RUNTIME_DIR"
# The default if login.defs has no other.
_DEFAULT_LAST_SYSTEM_UID = 999
_LOGIND = (
    "usr/lib/systemd/logind.conf.d",
    "etc/systemd/logind.conf",
    "run/systemd/logind.conf.d",
    "etc/systemd/logind.conf.d",
)


def check_directory(patient: Patient) -> Iterator[Finding]:
    path = patient.settings.runtime_dir
    yield from examine_directory(patient, "runtime.directory", path, mode=0o750, setting=_SETTING)


def check_filesystem(patient: Patient) -> Iterator[Finding]:
    mount = mount_of(patient.settings.runtime_dir)
    if mount.is_memory:
        yield ok("runtime.filesystem", f"{mount.point} is {mount.filesystem}")
    else:
        yield warning(
            "runtime.filesystem",
            f"{patient.settings.runtime_dir} lies on {mount.filesystem} ({mount.point}), not in "
            "memory: L1 is written to a disk, and hits depend on the page cache",
            f"set {_SETTING} to a directory in a tmpfs such as /dev/shm",
        )


def check_space(patient: Patient) -> Iterator[Finding]:
    """Compare L1's limit with the free space once the present files are gone."""
    settings = patient.settings
    path = settings.runtime_dir
    usage = os.statvfs(nearest_existing(path))
    available = usage.f_bavail * usage.f_frsize + _given_back_bytes(settings)
    sizes = f"{output.size_text(available)} are free for L1, whose limit is " + output.size_text(
        settings.l1.max_bytes
    )
    if available >= settings.l1.max_bytes:
        yield ok("runtime.space", sizes)
        return
    fix = (
        "make the tmpfs larger (mount -o remount,size=; Docker: --shm-size), "
        "or lower CACHESVC_L1__MAX_BYTES"
    )
    if settings.l1.allow_heap:
        meaning = "entries that do not fit are served from the heap, without local delivery"
        yield warning("runtime.space", f"{sizes}: {meaning}", fix)
    else:
        yield error("runtime.space", f"{sizes}: the daemon refuses to start", fix)


def check_physical_memory(patient: Patient) -> Iterator[Finding]:
    """Compare L1's limit with the host's memory: a tmpfs offers half of it by default."""
    text = (patient.filesystem / "proc/meminfo").read_text()
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    total_bytes = int(values["MemTotal"].split()[0]) * 1024
    limit = patient.settings.l1.max_bytes
    share = f"L1 may take {output.size_text(limit)} of {output.size_text(total_bytes)} of memory"
    if limit * 2 > total_bytes:
        yield warning(
            "runtime.memory",
            f"{share}, which is more than half; the kernel can swap a tmpfs but not reclaim it",
            "lower CACHESVC_L1__MAX_BYTES",
        )
    else:
        yield ok("runtime.memory", share)


def check_kernel(patient: Patient) -> Iterator[Finding]:
    """Check what local delivery needs: leases, which count readers, and holes, which erase."""
    folder = nearest_existing(patient.settings.runtime_dir)
    directory_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fd = unnamed_file(folder)
    try:
        durable.write_all(fd, b"\xff" * 8192)
        shared = SharedFile(directory_fd, "", fd, 8192)
        if (refusal := leases.why_not(fd)) is not None:
            raise OSError(f"a lease was refused for a file that nobody else has open: {refusal}")
        shared.file.punch()
        if any(shared.view()):
            raise OSError("a hole does not read as zeros")
    except OSError as exc:
        yield error(
            "runtime.kernel",
            f"{folder}: {exc.strerror or exc}: the daemon could not count the bytes that readers "
            "hold, nor erase them",
            f"set {_SETTING} to a directory in a tmpfs of this host, not a network filesystem",
        )
    else:
        yield ok("runtime.kernel", f"{folder} supports write leases and holes")
    finally:
        os.close(fd)
        os.close(directory_fd)


def check_hard_links(patient: Patient) -> Iterator[Finding]:
    """Check that no other user can make hard links, which keep an unlinked file's link count up."""
    check, path = "runtime.hard_links", patient.filesystem / "proc/sys/fs/protected_hardlinks"
    if files.hard_links_are_protected(path):
        yield ok(check, "no user can make hard links of files that the user may only read")
    else:
        yield warning(
            check,
            "fs.protected_hardlinks is not 1: a user who may read L1's files could keep them valid "
            "by a hard link, so the daemon shares no files and every answer is inline",
            "sysctl -w fs.protected_hardlinks=1",
        )


def check_remove_ipc(patient: Patient) -> Iterator[Finding]:
    """Check whether systemd-logind deletes the daemon's files when its user's last session ends."""
    check, path = "runtime.remove_ipc", patient.settings.runtime_dir
    if not path.resolve().is_relative_to("/dev/shm"):  # noqa: S108 - compared only
        yield ok(check, f"{path} is not in /dev/shm, which systemd-logind cleans")
    elif not (patient.filesystem / "run/systemd/system").is_dir():
        yield ok(check, "this host does not run systemd")
    elif patient.uid <= last_system_uid(patient.filesystem):
        yield ok(
            check, f"uid {patient.uid} is a system user: systemd-logind leaves its files alone"
        )
    elif not removes_ipc(patient.filesystem):
        yield ok(check, "logind.conf says RemoveIPC=no")
    elif _lingers(patient):
        yield ok(check, "this user lingers, so its session never ends")
    else:
        yield error(
            check,
            f"uid {patient.uid} is not a system user: when its last login session ends, "
            f"systemd-logind deletes its files in /dev/shm, and with them {path}",
            "run the daemon as a system user (useradd --system), or set RemoveIPC=no in "
            "/etc/systemd/logind.conf, or loginctl enable-linger",
        )


def last_system_uid(filesystem: Path) -> int:
    """Return the highest uid of a system user."""
    with contextlib.suppress(OSError):
        for line in (filesystem / "etc/login.defs").read_text().splitlines():
            name, *value = line.split()[:2] or [""]
            if name == "SYS_UID_MAX" and value and value[0].isdigit():
                return int(value[0])
    return _DEFAULT_LAST_SYSTEM_UID


def removes_ipc(filesystem: Path) -> bool:
    """Return systemd-logind's RemoveIPC: the last file that sets it wins, the default is yes."""
    value = "yes"
    for file in _logind_files(filesystem):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        with contextlib.suppress(OSError, configparser.Error):
            parser.read_string(file.read_text())
            value = parser.get("Login", "RemoveIPC", fallback=value)
    return value.strip().lower() not in ("no", "false", "off", "0")


def _logind_files(filesystem: Path) -> Iterator[Path]:
    for name in _LOGIND:
        path = filesystem / name
        if path.is_dir():
            yield from sorted(path.glob("*.conf"))
        elif path.is_file():
            yield path


def _lingers(patient: Patient) -> bool:
    try:
        name = pwd.getpwuid(patient.uid).pw_name
    except KeyError:
        return False
    return (patient.filesystem / "var/lib/systemd/linger" / name).exists()


def _given_back_bytes(settings: Settings) -> int:
    """Return the bytes that a start frees: it empties L1's directory.

    The spare files of a running daemon have no name there, and end with the daemon.
    """
    l1 = settings.runtime_dir / L1_DIRECTORY
    try:
        device = l1.stat().st_dev
        named = sum(_taken_bytes(file.lstat()) for file in l1.iterdir())
    except OSError:  # the directory does not exist, or this user may not read it
        return 0
    pid = daemon_pid(settings.socket_path)
    unnamed = _unnamed_bytes(pid, device) if pid else 0
    # Evicted entries that readers hold have no names either, and stay.
    return named + min(unnamed, settings.l1.spare_bytes)


def _unnamed_bytes(pid: int, device: int) -> int:
    """Return the bytes on that filesystem of the unnamed files that `pid` has open."""
    found: dict[int, int] = {}
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                status = link.stat()
                if status.st_dev == device and status.st_nlink == 0:
                    found[status.st_ino] = _taken_bytes(status)
    return sum(found.values())


def _taken_bytes(status: os.stat_result) -> int:
    return status.st_blocks * 512
