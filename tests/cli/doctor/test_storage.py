"""Does doctor see an L2 root that is on the wrong disk, or a catalog at risk?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cachesvc.cli.doctor import starts, storage
from cachesvc.cli.doctor.findings import Level, Patient
from cachesvc.config import Settings
from cachesvc.tiers.mounts import mount_of
from tests.cli.doctor.conftest import Examine
from tests.support.engine.mounts import small_filesystem

MOUNTINFO = r"""22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 259:2 / /opt/dlami/nvme rw,relatime - xfs /dev/nvme1n1 rw
31 30 0:40 / /opt/dlami/nvme/with\040space ro - ext4 /dev/sdb ro
32 30 0:41 / /opt/dlami/nvme/with\040space rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mountinfo(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTINFO)
    return path


@pytest.mark.parametrize(
    ("path", "point", "filesystem"),
    [
        ("/opt/dlami/nvme/vton-cache/new", "/opt/dlami/nvme", "xfs"),
        ("/opt/dlami/nvme", "/opt/dlami/nvme", "xfs"),
        ("/opt/dlami/nvme2", "/", "ext4"),
        ("/opt/dlami/nvme/with space/l2", "/opt/dlami/nvme/with space", "tmpfs"),
    ],
)
def test_the_mount_of_a_path_is_the_deepest_and_of_those_the_last(
    mountinfo: Path, path: str, point: str, filesystem: str
) -> None:
    found = mount_of(Path(path), mountinfo)
    assert (str(found.point), found.filesystem) == (point, filesystem)


def test_the_root_disk_in_the_place_of_the_nvme_is_a_warning(
    examine: Examine, settings: dict[str, Any]
) -> None:
    settings["l2"]["root"] = Path("/nonexistent-nvme/vton-cache")
    found = examine(storage.check_mount)
    assert found.level is Level.WARNING
    assert "root filesystem" in found.message


def test_a_disk_in_memory_is_a_warning(
    examine: Examine, settings: dict[str, Any], runtime_dir: Path
) -> None:
    settings["l2"]["root"] = runtime_dir / "l2"
    settings["state_dir"] = runtime_dir / "state"
    assert examine(storage.check_mount).level is Level.WARNING
    assert examine(storage.check_state_place).level is Level.WARNING


def test_a_catalog_inside_the_l2_root_is_an_error(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    assert examine(storage.check_state_place).level is Level.OK
    assert examine(starts.check_separate).level is Level.OK
    settings["state_dir"] = tmp_path / "l2" / "state"
    found = examine(starts.check_separate)
    assert found.level is Level.ERROR
    assert "state_dir (CACHESVC_STATE_DIR)" in found.message


@pytest.mark.parametrize("name", ["max_bytes", "free_floor_bytes"])
def test_a_size_that_was_set_and_exceeds_the_disk_is_an_error(
    examine: Examine, settings: dict[str, Any], name: str
) -> None:
    settings["l2"][name] = 1 << 60
    found = examine(storage.check_space)
    assert found.level is Level.ERROR
    assert f"l2.{name} (CACHESVC_L2__{name.upper()}) is {1 << 60} bytes" in found.message


def test_space_below_the_floor_is_an_error_and_a_disk_below_the_default_a_warning(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    assert examine(storage.check_space).level is Level.OK
    with small_filesystem(tmp_path / "disk", 64 << 20) as small:
        settings["l2"] = {"root": small.path / "l2", "free_floor_bytes": 0}
        assert examine(storage.check_space).level is Level.WARNING
        settings["l2"]["free_floor_bytes"] = 64 << 20
        assert examine(storage.check_space).level is Level.ERROR


def test_a_disk_that_takes_and_syncs_a_file_says_how_long_it_took(
    examine: Examine, tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    assert "ms" in examine(storage.check_fsync).message
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_and_a_read_only_one_are_errors(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "disk", 1 << 20) as small:
        settings["l2"]["root"] = small.path / "l2"
        small.fill()
        assert examine(storage.check_fsync).level is Level.ERROR
        small.free()
        small.set_read_only(True)
        found = examine(storage.check_fsync)
        assert found.level is Level.ERROR
        assert "Read-only" in found.message


def test_a_place_where_this_user_may_make_nothing_is_an_error(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    with small_filesystem(tmp_path / "disk", 1 << 20) as small:
        settings["l2"]["root"] = small.path / "l2"
        assert examine(storage.check_root).level is Level.OK
        small.set_read_only(True)
        assert examine(storage.check_root).level is Level.ERROR


def test_a_root_that_is_a_file_is_an_error(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "l2").write_text("")
    assert "not a directory" in examine(storage.check_root).message


def test_too_few_inodes_for_as_many_entries_as_fit_are_a_warning(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    found = []
    for inodes in (0, 100, 10):
        with small_filesystem(tmp_path / f"disk-{inodes}", 8 << 20, inodes) as small:
            settings["l2"] = {"root": small.path / "l2", "max_bytes": 8 << 20}
            in_memory, on_disk = storage.check_inodes(Patient(Settings(**settings)))
        assert in_memory.level is Level.OK
        found.append(on_disk)
    assert [one.level for one in found] == [Level.OK, Level.OK, Level.WARNING]
    assert "9 of 10 inodes are free" in found[2].message
