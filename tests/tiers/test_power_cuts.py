"""Is everything on the disk that a power cut must not take, before the tier reports it as done?

Promises 1, 2 and 9. The tests watch the system calls: a file's bytes are safe after its fsync, a
name is safe after the fsync of the directory that holds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.keys import EntryKey
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.disk_files import DiskFiles, Location

AT = Location(EntryKey("garment", "shirt"), 42)
BLOB = bytes(range(256)) * 2048
SQLITE_FULL = 2


class Watched:
    """The inodes whose bytes or names a power cut would take now."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.unsynced_bytes: set[int] = set()
        self.unsynced_names: set[int] = set()
        # Names that were given to files whose bytes were not safe yet.
        self.too_early: list[str] = []
        for name in ("write", "fsync", "rename", "mkdir", "unlink"):
            patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))

    def _write(self, write: Any) -> Any:
        def watched(fd: int, data: Any) -> int:
            self.unsynced_bytes.add(os.fstat(fd).st_ino)
            return int(write(fd, data))

        return watched

    def _fsync(self, fsync: Any) -> Any:
        def watched(fd: int) -> None:
            fsync(fd)
            self.unsynced_bytes.discard(os.fstat(fd).st_ino)
            self.unsynced_names.discard(os.fstat(fd).st_ino)

        return watched

    def _rename(self, rename: Any) -> Any:
        def watched(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            if os.stat(source, dir_fd=src_dir_fd).st_ino in self.unsynced_bytes:
                self.too_early.append(target)
            rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self.unsynced_names.add(os.fstat(dst_dir_fd).st_ino)

        return watched

    def _mkdir(self, mkdir: Any) -> Any:
        def watched(path: str, mode: int = 0o777, *, dir_fd: int) -> None:
            mkdir(path, mode, dir_fd=dir_fd)
            self.unsynced_names.add(os.fstat(dir_fd).st_ino)

        return watched

    def _unlink(self, unlink: Any) -> Any:
        def watched(path: str, *, dir_fd: int) -> None:
            unlink(path, dir_fd=dir_fd)
            self.unsynced_names.add(os.fstat(dir_fd).st_ino)

        return watched


@pytest.fixture
def disk_files(tmp_path: Path) -> Iterator[DiskFiles]:
    disk_files = DiskFiles(tmp_path / "l2", ("garment",))
    yield disk_files
    disk_files.close()


@pytest.mark.parametrize("is_first_of_its_id", [True, False])
def test_a_stored_file_has_its_bytes_and_its_name_on_disk(
    disk_files: DiskFiles, monkeypatch: pytest.MonkeyPatch, is_first_of_its_id: bool
) -> None:
    if not is_first_of_its_id:
        disk_files.write(Location(AT.key, 41), BLOB)
    watched = Watched(monkeypatch)
    disk_files.write(AT, BLOB)
    assert watched.too_early == []
    assert watched.unsynced_bytes == set()
    assert watched.unsynced_names == set()


def test_a_durable_removal_is_on_disk(
    disk_files: DiskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_files.write(AT, BLOB)
    watched = Watched(monkeypatch)
    disk_files.remove(AT, durable=True)
    assert watched.unsynced_names == set()


def test_the_catalog_syncs_every_commit(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, on_reset=lambda: None)
    assert catalog._db is not None
    try:
        assert catalog._db.execute("PRAGMA synchronous").fetchone() == (SQLITE_FULL,)
    finally:
        catalog._db.close()
        catalog.close()
