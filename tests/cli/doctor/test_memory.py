"""Does doctor see a runtime directory that cannot hold L1, or that will be deleted?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from cachesvc.cli.doctor import memory
from cachesvc.cli.doctor.findings import Finding, Level, Patient
from cachesvc.config import L1Settings, Settings
from tests.cli.doctor.conftest import Examine
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.engine.mounts import small_filesystem
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import fresh_id

SOMEBODY = 4321


def test_a_directory_of_our_own_in_shared_memory_is_well(examine: Examine) -> None:
    for check in (
        memory.check_directory,
        memory.check_filesystem,
        memory.check_space,
        memory.check_kernel,
    ):
        assert examine(check).level is Level.OK


def test_the_checks_leave_nothing_behind(examine: Examine, runtime_dir: Path) -> None:
    examine(memory.check_kernel)
    assert list(runtime_dir.iterdir()) == []


def test_a_directory_on_a_disk_is_not_memory(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["runtime_dir"] = tmp_path / "not-there-yet"
    assert examine(memory.check_filesystem).level is Level.WARNING


def test_too_small_a_tmpfs_is_an_error_unless_the_heap_may_help(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "shm", 1 << 20) as small:
        settings["runtime_dir"] = small.path / "cachesvc"
        settings["l1"] = {"max_bytes": 2 << 20}
        found = examine(memory.check_space)
        assert found.level is Level.ERROR
        assert "--shm-size" in found.fix
        settings["l1"]["allow_heap"] = True
        assert examine(memory.check_space).level is Level.WARNING


def test_what_a_running_daemon_holds_counts_as_room(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "shm", 2 << 20) as small:
        settings["runtime_dir"] = small.path / "cachesvc"
        settings["l1"] = {"max_bytes": 2 << 20}
        l1 = small.path / "cachesvc/l1"
        l1.mkdir(parents=True)
        (l1 / "entry").write_bytes(bytes(1 << 20))
        assert examine(memory.check_space).level is Level.OK


def test_more_than_half_of_the_memory_is_a_warning(
    examine: Examine, settings: dict[str, Any], filesystem: Path
) -> None:
    (filesystem / "proc").mkdir()
    (filesystem / "proc/meminfo").write_text("MemTotal:  4096 kB\nMemFree:  10 kB\n")
    settings["l1"] = {"max_bytes": 2 << 20}
    assert examine(memory.check_physical_memory).level is Level.OK
    settings["l1"] = {"max_bytes": (2 << 20) + 1}
    assert examine(memory.check_physical_memory).level is Level.WARNING


def test_a_link_is_refused_as_the_daemon_does(
    examine: Examine, settings: dict[str, Any], runtime_dir: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(runtime_dir)
    settings["runtime_dir"] = link
    assert "symbolic link" in examine(memory.check_directory).message


def test_somebody_elses_directory_is_an_error_that_names_both(examine: Examine) -> None:
    found = examine(memory.check_directory, uid=SOMEBODY)
    assert found.level is Level.ERROR
    assert f"uid {os.geteuid()}" in found.message
    assert f"uid {SOMEBODY}" in found.message


def test_a_directory_that_is_open_to_everyone_is_a_warning(
    examine: Examine, runtime_dir: Path
) -> None:
    runtime_dir.chmod(0o777)
    found = examine(memory.check_directory)
    assert found.level is Level.WARNING
    assert found.fix == f"chmod 0750 {runtime_dir}"


@pytest.fixture
def on_systemd(filesystem: Path) -> Path:
    (filesystem / "run/systemd/system").mkdir(parents=True)
    (filesystem / "etc/login.defs").write_text("# defaults\nSYS_UID_MAX  499\n")
    return filesystem


@pytest.mark.usefixtures("on_systemd")
def test_logind_deletes_the_files_of_a_user_that_is_not_the_systems(examine: Examine) -> None:
    found = examine(memory.check_remove_ipc, uid=1000)
    assert found.level is Level.ERROR
    assert "RemoveIPC=no" in found.fix


@pytest.mark.usefixtures("on_systemd")
@pytest.mark.parametrize(("uid", "level"), [(499, Level.OK), (500, Level.ERROR)])
def test_login_defs_says_which_users_are_the_systems(
    examine: Examine, uid: int, level: Level
) -> None:
    assert examine(memory.check_remove_ipc, uid=uid).level is level


@pytest.mark.parametrize(
    ("files", "removes"),
    [
        ({}, True),
        ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n"}, True),
        ({"etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n"}, False),
        (
            {
                "etc/systemd/logind.conf": "[Login]\nRemoveIPC=no\n",
                "etc/systemd/logind.conf.d/50-ours.conf": "[Login]\nRemoveIPC=yes\n",
            },
            True,
        ),
        ({"usr/lib/systemd/logind.conf.d/a.conf": "[Login]\nRemoveIPC=0\n"}, False),
        ({"etc/systemd/logind.conf": "no section at all"}, True),
    ],
)
def test_removeipc_is_read_as_systemd_does(
    on_systemd: Path, files: dict[str, str], removes: bool
) -> None:
    for name, text in files.items():
        (on_systemd / name).parent.mkdir(parents=True, exist_ok=True)
        (on_systemd / name).write_text(text)
    assert memory.removes_ipc(on_systemd) is removes


@pytest.mark.usefixtures("on_systemd")
def test_a_directory_elsewhere_is_not_cleaned_by_logind(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["runtime_dir"] = tmp_path
    assert examine(memory.check_remove_ipc, uid=1000).level is Level.OK


def test_a_running_daemons_spare_files_come_back_and_a_dead_ones_are_not_imagined(
    new_daemon: NewDaemon, tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "shm", 8 << 20) as small:
        at = {"RUNTIME_DIR": str(small.path / "ours"), "L1__MAX_BYTES": str(7 << 20)}
        daemon = new_daemon(**at)
        user = fresh_id("u")
        sample_objects.put_in_folder(daemon.origin_dir, sample_objects.person(user))
        get_human(daemon.stub(), user)
        settings = Settings(runtime_dir=small.path / "ours", l1=L1Settings(max_bytes=7 << 20))
        assert memory_space(settings).level is Level.OK
        daemon.stop()
        (small.path / "other").write_bytes(bytes(3 << 20))
        assert memory_space(settings).level is Level.ERROR


def memory_space(settings: Settings) -> Finding:
    (found,) = memory.check_space(Patient(settings))
    return found


@pytest.mark.parametrize(
    ("says", "level"), [("1\n", Level.OK), ("0\n", Level.WARNING), (None, Level.WARNING)]
)
def test_hard_links_that_the_kernel_allows_to_readers_are_seen(
    examine: Examine, filesystem: Path, says: str | None, level: Level
) -> None:
    if says is not None:
        (filesystem / "proc/sys/fs").mkdir(parents=True)
        (filesystem / "proc/sys/fs/protected_hardlinks").write_text(says)
    assert examine(memory.check_hard_links).level is level
