"""Which programs do tests and benchmarks need, and which Debian package has each?

A test only looks for a program here, and is skipped by the program's name if it is missing. Before
the tests, `make programs` installs the missing ones (`tests/install_programs.py`).
"""

from __future__ import annotations

import ctypes
import os
import shutil
from typing import NamedTuple

# A user without rights may not have them in PATH, although mkfs and nft are there.
_ADMINS_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


class Programs(NamedTuple):
    """Programs, and the libraries that they load, which are installed together."""

    commands: tuple[str, ...]
    packages: tuple[str, ...]
    without: str  # a sentence: what a test run without them leaves out
    used_by: tuple[str, ...]  # files or folders
    slow: bool = False  # only slow tests and benchmarks use them


TABLE = (
    Programs(
        ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool"),
        ("radosgw", "ceph-mon", "ceph-osd"),
        "S3 is played by moto, and what moto does not check (signatures, policies) is skipped",
        ("tests/origin", "tests/e2e", "tests/cli"),
    ),
    Programs(
        ("chromium", "libatomic.so.1"),  # Playwright's own node loads it
        ("chromium", "libatomic1"),
        "the tests that open the status page in a browser are skipped",
        ("tests/e2e/test_status_page.py",),
    ),
    Programs(
        ("prometheus", "promtool"),
        ("prometheus",),
        "the tests of alerts, recording rules and the dashboard's queries are skipped",
        ("tests/deploy/test_alerts.py", "tests/deploy/test_dashboard.py"),
    ),
    Programs(
        ("strace",),
        ("strace",),
        "the tests that make system calls fail, and the one of the unit's filter, are skipped",
        ("tests/crash/test_struck_engine.py", "tests/deploy/test_systemd.py"),
    ),
    Programs(
        ("systemd-analyze", "systemd-sysusers"),
        ("systemd",),
        "the tests that ask systemd about its units are skipped",
        ("tests/deploy/test_systemd.py",),
    ),
    Programs(
        ("mkfs.ext4",),
        ("e2fsprogs",),
        "the tests of power cuts on ext4 are skipped",
        ("tests/crash",),
    ),
    Programs(
        ("mkfs.xfs",),
        ("xfsprogs",),
        "the tests of power cuts on xfs are skipped",
        ("tests/crash",),
        slow=True,
    ),
    Programs(
        ("mount", "umount"),
        ("mount",),
        "the tests of full disks and of power cuts are skipped",
        ("tests/crash", "tests/engine", "tests/e2e/test_bounds.py"),
    ),
    Programs(
        ("setpriv", "unshare"),
        ("util-linux",),
        "the tests that start servers, or run as somebody else, fail or are skipped",
        ("tests",),
    ),
    Programs(
        ("bindfs", "fusermount3"),
        ("bindfs", "fuse3"),
        "the tests of a runtime directory behind a FUSE mount are skipped",
        ("tests/local",),
    ),
    Programs(
        ("ip", "nft"),
        ("iproute2", "nftables"),
        "the tests of a network that loses everything are skipped",
        ("tests/client", "tests/e2e", "tests/local"),
    ),
    Programs(
        ("curl",),
        ("curl",),
        "the tests of the README's and V2's commands with curl are skipped",
        ("tests/docs", "tests/e2e/test_http_operations.py"),
    ),
    Programs(
        ("find", "du"),
        ("findutils", "coreutils"),
        "the tests of V2's commands are skipped",
        ("tests/docs/test_v2_lines.py", "tests/e2e/test_v2_operations.py"),
    ),
    Programs(
        ("node",),
        ("nodejs",),
        "the test of the pm2 file is skipped, and node does not verify the documented CA",
        (
            "tests/deploy/test_manifests.py",
            "tests/deploy/test_nestjs.py",
            "tests/docs/test_certificates.py",
            "tests/foreign_files",
        ),
    ),
    Programs(
        ("npm",),
        ("npm",),
        "the tests of the NestJS module are skipped",
        ("tests/deploy/test_nestjs.py", "tests/foreign_files"),
        slow=True,
    ),
    Programs(
        ("redis-server",),
        ("redis-server",),
        "the tests of the NestJS module are skipped, and the benchmark does not run Redis",
        ("tests/deploy/test_nestjs.py", "bench/contenders/redis_get.py"),
        slow=True,
    ),
    Programs(
        ("mogrify",),
        ("imagemagick",),
        "make foreign-files fails",
        ("tests/foreign_files",),
        slow=True,
    ),
    Programs(
        ("memcached",),
        ("memcached",),
        "the benchmark does not run memcached",
        ("bench/contenders/memcached_get.py",),
        slow=True,
    ),
    Programs(
        ("openssl",),
        ("openssl",),
        "the tests of the NestJS module and of the documented CA are skipped",
        ("tests/deploy/test_nestjs.py", "tests/docs/test_certificates.py"),
        slow=True,
    ),
)

_ROWS = {command: row for row in TABLE for command in row.commands}


def is_installed(command: str) -> bool:
    """Return whether it is on this machine, also if only root has its folder in PATH."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_ADMINS_FOLDERS))
    return _is_in(command, path)


def _is_in(command: str, path: str | None) -> bool:
    return _can_load(command) if ".so." in command else bool(shutil.which(command, path=path))


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def why_missing(*commands: str) -> str | None:
    """Return which of these commands is missing and which package has it, or None.

    Each command must be in the table; otherwise no new machine would get it.
    """
    missing = [command for command in commands if not _is_in(command, None)]
    if not missing:
        return None
    packages = dict.fromkeys(name for command in missing for name in _ROWS[command].packages)
    return f"{', '.join(missing)} not installed (make programs; Debian: {' '.join(packages)})"
