"""Where do the figures come from? The hardware, the kernel and the versions that matter."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

_LIBRARIES = (
    "torch",
    "grpcio",
    "protobuf",
    "safetensors",
    "redis",
    "hiredis",
    "uvloop",
    "ray",
    "vineyard",
    "pyarrow",
    "pymemcache",
    "pillow",
)
_SERVERS = ("redis-server", "memcached")
# Above this load for each core, other processes are computing too.
BUSY_LOAD_PER_CORE = 0.5


def describe() -> dict[str, str]:
    """Return what a reader needs to compare these figures with others."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        **{name: _server_version(name) for name in _SERVERS},
        "load average": f"{os.getloadavg()[0]:.2f}",
    }


def load_warning(described: dict[str, str]) -> str | None:
    """Return a warning if the machine was busy before the first measurement."""
    load, cores = float(described["load average"]), int(described["cores"])
    if load <= BUSY_LOAD_PER_CORE * cores:
        return None
    return f"the load average was {load:.2f} on {cores} cores: other processes are running"


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "-"


def _server_version(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        return "-"
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found.group() if found else "?"
