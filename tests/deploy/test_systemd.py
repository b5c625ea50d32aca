"""Does the unit fit the daemon: its paths, its limits, and the system calls that its sandbox
allows?
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cachesvc.config import GIB, MIB, Settings
from cachesvc_client import CacheClient
from tests.support import sample_objects, strace
from tests.support.daemons import Daemon, wait_until
from tests.support.sample_objects import fresh_id, put_in_folder
from tests.support.systemd_units import (
    UNITS,
    require_systemd,
    said_by,
    size_bytes,
    system_calls,
    unit_keys,
)

UNIT = "cachesvc.service"
ANSWERS_WITHIN_S = 40.0
# In tenths, as systemd-analyze counts: 0 is confined, 100 is root without a sandbox.
MOST_EXPOSURE = "20"


@pytest.fixture(scope="module")
def keys() -> dict[str, list[str]]:
    return unit_keys(UNIT)


@pytest.fixture(scope="module")
def defaults() -> Settings:
    return Settings()


def test_systemd_accepts_the_unit_and_finds_it_confined(tmp_path: Path) -> None:
    require_systemd("systemd-analyze")
    text = (UNITS / UNIT).read_text()
    installed = tmp_path / UNIT
    # `systemd-analyze verify` needs the command to exist.
    installed.write_text(re.sub(r"(?<=^ExecStart=)\S+", "/bin/true", text, flags=re.MULTILINE))
    assert said_by("systemd-analyze", "verify", "--man=no", str(installed)) == ""
    threshold = f"--threshold={MOST_EXPOSURE}"
    said_by("systemd-analyze", "security", "--offline=true", threshold, str(installed))


def test_the_user_is_one_of_the_systems(keys: dict[str, list[str]]) -> None:
    """systemd-logind deletes the /dev/shm files of a user who is not a system user."""
    require_systemd("systemd-sysusers")
    said = said_by("systemd-sysusers", "--dry-run", str(UNITS / "cachesvc.sysusers.conf"))
    if found := re.search(r"Creating user '(\w+)' .* with UID (\d+)", said):
        assert int(found[2]) < 1000
        assert keys["User"] == [found[1]]
    else:  # the host has this user already
        assert said == ""
    assert keys["RemoveIPC"] == ["no"]


def test_the_places_are_those_of_the_settings(
    keys: dict[str, list[str]], defaults: Settings
) -> None:
    root, mount = str(defaults.l2.root), str(defaults.l2.root.parent)
    assert keys["StateDirectory"] == [defaults.state_dir.name]
    assert defaults.state_dir.parent == Path("/var/lib")
    assert keys["ReadWritePaths"] == [f"-{root}"]
    checked, made = keys["ExecStartPre"]
    assert checked == f"+/usr/bin/mountpoint {mount}"
    assert made.startswith("+/usr/bin/install -d ")
    assert made.endswith(f" {root}")
    tmpfiles = (UNITS / "cachesvc.tmpfiles.conf").read_text()
    assert f"\nd {defaults.runtime_dir} 0750 cachesvc cachesvc -\n" in tmpfiles


def test_the_limits_leave_room_for_the_defaults(
    keys: dict[str, list[str]], defaults: Settings
) -> None:
    (memory,) = keys["MemoryMax"]
    assert size_bytes(memory) >= defaults.l1.max_bytes + 2 * GIB
    assert defaults.l2.max_pending_bytes < GIB + 512 * MIB
    entries = sum(kind.max_entries * len(kind.namespaces) for kind in defaults.build_kinds().all)
    (descriptors,) = keys["LimitNOFILE"]
    assert int(descriptors) > 2 * entries + defaults.http.max_connections
    (stop_s,) = keys["TimeoutStopSec"]
    assert int(stop_s) > 2 * defaults.grpc.drain_s


def test_it_is_started_again_unless_a_setting_cannot_work(keys: dict[str, list[str]]) -> None:
    assert keys["Type"] == ["notify"]
    assert keys["Restart"] == ["on-failure"]  # a missed watchdog is a failure, too
    assert keys["RestartPreventExitStatus"] == ["2"]
    assert keys["StartLimitIntervalSec"] == ["0"]
    assert int(keys["WatchdogSec"][0]) > 0


def test_the_daemon_needs_no_call_that_the_unit_forbids(
    keys: dict[str, list[str]], tmp_path: Path
) -> None:
    """Start, miss, hit, invalidation, HTTP, end; no memory is both written and executed."""
    require_systemd("systemd-analyze")
    if (reason := strace.why_not_available()) is not None:
        pytest.skip(reason)
    log = tmp_path / "calls"
    daemon = Daemon(tmp_path, under=("strace", "-D", "-f", "-q", "-o", str(log)))
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    try:
        daemon.start()
        with CacheClient(str(daemon.socket), wait_s=ANSWERS_WITHIN_S) as client:
            client.get_human(user)
            client.invalidate(user_id=user)
            client.get_human(user)
        assert daemon.http("/metrics")[0] == 200
        assert daemon.stop() == 0
    finally:
        daemon.close()
    # The tracer ends after the process, and writes until then.
    pid = log.read_text().partition(" ")[0]
    # strace fills up a short process id with spaces.
    last = re.compile(rf"^{pid} +\+\+\+ exited with 0 \+\+\+\n\Z", re.MULTILINE)
    wait_until(lambda: last.search(log.read_text()) is not None, ANSWERS_WITHIN_S, log.read_text)
    calls = log.read_text()
    used = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", calls, re.MULTILINE))
    assert {"openat", "flock", "renameat2", "fsync"} & used
    assert used <= system_calls(keys["SystemCallFilter"])
    assert "PROT_WRITE|PROT_EXEC" not in calls
    families = set(re.findall(r" socket\((AF_[A-Z0-9]+)", calls))
    assert families <= set(keys["RestrictAddressFamilies"][0].split())
