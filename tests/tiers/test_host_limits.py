"""Is the limit of the daemon's cgroup found, however the host or the container shows it?

The tests use copies of the files of real hosts and, if this process may make one, a real cgroup.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cachesvc.config import Settings
from cachesvc.tiers import host_limits
from cachesvc.tiers.host_limits import Limit, MemoryNeeds
from tests.support.cgroups import real_group
from tests.support.daemons import ROOT

MIB = 1 << 20
V2 = "30 24 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 24 0:36 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
UNLIMITED_V1 = 9223372036854771712


class Host:
    """A tree with the files that a kernel shows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)

    def shows(self, group: str, *mounts: str) -> None:
        (self.root / "proc/self/cgroup").write_text(group + "\n")
        others = "22 1 0:20 / /proc rw - proc proc rw"
        (self.root / "proc/self/mountinfo").write_text("\n".join((others, *mounts)) + "\n")

    def write(self, path: str, value: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        return file.parent

    def memory(self) -> Limit | None:
        return host_limits.memory_limit(filesystem=self.root)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


def test_the_least_of_all_groups_above_counts_in_version_2(host: Host) -> None:
    host.shows("0::/system.slice/cachesvc.service", V2.format(root="/"))
    own = host.write("sys/fs/cgroup/system.slice/cachesvc.service/memory.max", 900)
    above = host.write("sys/fs/cgroup/system.slice/memory.max", 1000)
    assert host.memory() == Limit(900, own)
    host.write("sys/fs/cgroup/system.slice/memory.max", 500)
    assert host.memory() == Limit(500, above)
    host.write("sys/fs/cgroup/system.slice/memory.max", "max")
    host.write("sys/fs/cgroup/system.slice/cachesvc.service/memory.max", "max")
    assert host.memory() is None


def test_a_container_that_sees_its_own_group_as_the_top_reads_it_there(host: Host) -> None:
    host.shows("0::/", V2.format(root="/"))
    top = host.write("sys/fs/cgroup/memory.max", 700)
    assert host.memory() == Limit(700, top)


@pytest.mark.parametrize("group", ["/docker/abc", "/kubepods/other", "/../../other"])
def test_a_group_under_the_hosts_name_is_found_in_what_is_mounted(host: Host, group: str) -> None:
    host.shows(f"4:memory:{group}", V1.format(root="/docker/abc"))
    top = host.write("sys/fs/cgroup/memory/memory.limit_in_bytes", 600)
    assert host.memory() == Limit(600, top)


def test_version_1_beside_an_empty_version_2_counts(host: Host) -> None:
    unified = V2.format(root="/").replace("cgroup rw,nosuid", "cgroup/unified rw,nosuid")
    host.shows("4:cpu,memory:/a/b\n0::/", V1.format(root="/"), unified)
    own = host.write("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", UNLIMITED_V1)
    assert host.memory() is None
    host.write("sys/fs/cgroup/memory/a/memory.limit_in_bytes", 800)
    assert host.memory() == Limit(800, own.parent)


def test_the_limit_of_threads_is_read_likewise(host: Host) -> None:
    host.shows("0::/pod", V2.format(root="/"))
    pod = host.write("sys/fs/cgroup/pod/pids.max", 100)
    assert host_limits.threads_limit(filesystem=host.root) == Limit(100, pod)


def test_a_host_that_shows_nothing_has_no_limit(host: Host, tmp_path: Path) -> None:
    assert host.memory() is None
    host.shows("0::/", V2.format(root="/"))
    assert host.memory() is None
    assert host_limits.memory_limit(filesystem=tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("of_needed", "level"),
    [("least - 1", "error"), ("least", "warning"), ("working - 1", "warning"), ("working", None)],
)
def test_a_limit_that_is_too_low_is_said_with_the_numbers(
    host: Host, of_needed: str, level: str | None
) -> None:
    settings = Settings(l1={"max_bytes": 1024 * MIB})
    needs = MemoryNeeds.of(settings)
    sizes = {"least": needs.least_bytes, "working": needs.working_bytes}
    name, _, less = of_needed.partition(" - ")
    limit = sizes[name] - int(less or 0)
    host.shows("0::/", V2.format(root="/"))
    host.write("sys/fs/cgroup/memory.max", limit)
    with capture_logs() as lines:
        assert host_limits.warn(settings, host.memory()) == limit
    assert host_limits.problems(settings, host.memory()) == []
    assert [line["log_level"] for line in lines] == ([level] if level else [])
    for line in lines:
        assert (line["limit_bytes"], line["l1_max_bytes"]) == (limit, 1024 * MIB)
        assert line["needed_bytes"] == needs.working_bytes
        assert "CACHESVC_L1__MAX_BYTES" in line["action"]


def test_a_limit_that_l1_alone_exceeds_is_a_problem_with_both_numbers(host: Host) -> None:
    settings = Settings(l1={"max_bytes": 1024 * MIB})
    host.shows("0::/", V2.format(root="/"))
    host.write("sys/fs/cgroup/memory.max", 1024 * MIB)
    (problem,) = host_limits.problems(settings, host.memory())
    assert problem.startswith("l1.max_bytes (CACHESVC_L1__MAX_BYTES) is 1 GiB, but the memory")
    assert host_limits.problems(settings, None) == []


def test_the_sizes_that_the_unit_and_the_manifests_give_are_enough() -> None:
    assert MemoryNeeds.of(Settings()).working_bytes <= 3 << 30


def test_a_real_groups_limit_is_read_by_a_process_in_a_group_below_it() -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "(Path(sys.argv[1]) / 'inner/cgroup.procs').write_text(str(os.getpid()))\n"
        "from cachesvc.tiers import host_limits\n"
        "found = host_limits.memory_limit()\n"
        "print(found.value, found.group)\n"
    )
    with real_group(500 * MIB) as group:
        done = subprocess.run(
            [sys.executable, "-c", program, str(group)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.stdout.split() == [str(500 * MIB), str(group)], done.stderr
