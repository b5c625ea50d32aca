"""Does doctor see a cgroup with less memory, or fewer threads, than the daemon needs?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cachesvc.cli.doctor import limits
from cachesvc.cli.doctor.findings import Level
from tests.cli.doctor.conftest import Examine

MIB = 1 << 20


@pytest.fixture
def group(filesystem: Path) -> Path:
    """The only group of a container, at its mount point."""
    (filesystem / "proc/self").mkdir(parents=True)
    (filesystem / "proc/self/cgroup").write_text("0::/\n")
    mount = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (filesystem / "proc/self/mountinfo").write_text(mount)
    group = filesystem / "sys/fs/cgroup"
    group.mkdir(parents=True)
    return group


def test_a_group_with_less_memory_than_a_full_l1_is_an_error(
    examine: Examine, settings: dict[str, Any], group: Path
) -> None:
    settings["l1"] = {"max_bytes": 1024 * MIB}
    assert examine(limits.check_memory).level is Level.OK
    for mib, level in ((500, Level.ERROR), (1200, Level.WARNING), (3072, Level.OK)):
        (group / "memory.max").write_text(f"{mib * MIB}\n")
        found = examine(limits.check_memory)
        assert found.level is level
        assert str(group) in found.message
    (group / "memory.max").write_text("max\n")
    assert "no cgroup limits" in examine(limits.check_memory).message


def test_too_few_threads_are_a_warning_that_names_what_allows_them(
    examine: Examine, group: Path
) -> None:
    assert examine(limits.check_threads, uid=0).level is Level.OK
    (group / "pids.max").write_text("20\n")
    found = examine(limits.check_threads, uid=0)
    assert found.level is Level.WARNING
    assert found.message.startswith(f"{group} allows 20 threads")
    (group / "pids.max").write_text(f"{1000 * (os.cpu_count() or 1)}\n")
    assert examine(limits.check_threads, uid=0).level is Level.OK
