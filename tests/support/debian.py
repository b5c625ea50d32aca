"""How does a test get a program from Debian? It is there, or root's apt-get brings it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

_LOCK = Path("/tmp/cachesvc-tests-apt-install.lock")


def why_missing(binaries: Sequence[str], packages: Sequence[str]) -> str | None:
    """Return which of `binaries` cannot be had, or None. Installs `packages` if root may."""
    if _missing(binaries) and os.geteuid() == 0 and shutil.which("apt-get"):
        _install(binaries, packages)
    missing = _missing(binaries)
    return f"{', '.join(missing)} not installed ({' '.join(packages)})" if missing else None


def _missing(binaries: Sequence[str]) -> list[str]:
    return [binary for binary in binaries if shutil.which(binary) is None]


def _install(binaries: Sequence[str], packages: Sequence[str]) -> None:
    # Workers of one test run would otherwise fight over dpkg's lock.
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        for command in (install, ["apt-get", "update"], install):
            if not _missing(binaries):
                return
            subprocess.run(
                command,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                check=False,
            )
