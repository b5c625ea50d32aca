"""Is every file of L2 all or nothing, checked when read, and never followed outside the tree?

Promises 2, 7 and 9.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachesvc.core.checksum import checksum
from cachesvc.core.errors import ConfigError, CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.tiers.disk_files import DiskFiles, Location
from cachesvc.tiers.quarantine import MAX_FILES
from tests.support.engine.mounts import small_filesystem

NAMESPACES = ("garment", "text")
AT = Location(EntryKey("garment", "shirt"), 42)
BLOB = bytes(range(256)) * 2048  # two chunks of 256 KiB


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "l2"


@pytest.fixture
def disk_files(root: Path) -> Iterator[DiskFiles]:
    disk_files = DiskFiles(root, NAMESPACES)
    yield disk_files
    disk_files.close()


def path_of(root: Path, at: Location = AT) -> Path:
    return root / at.key.namespace / at.key.id / f"{at.generation}.safetensors"


def read(disk_files: DiskFiles, at: Location = AT, data: bytes = BLOB) -> bytes:
    chunks = disk_files.read_chunks(at, len(data), checksum(data))
    return b"".join(bytes(chunk) for chunk in chunks)


def names_below(root: Path) -> set[str]:
    found = (p.relative_to(root) for p in root.rglob("*"))
    return {str(p) for p in found} - {".tmp", ".quarantine", *NAMESPACES}


# ---- writing and reading


def test_what_was_written_is_read_back(disk_files: DiskFiles, root: Path) -> None:
    disk_files.write(AT, BLOB)
    assert read(disk_files) == BLOB
    assert names_below(root) == {"garment/shirt", "garment/shirt/42.safetensors"}


def test_a_directory_for_temporary_files_that_was_deleted_is_made_again(
    disk_files: DiskFiles, root: Path
) -> None:
    (root / ".tmp").rmdir()
    disk_files.write(AT, BLOB)
    assert read(disk_files) == BLOB
    assert list((root / ".tmp").iterdir()) == []


def test_a_link_in_the_place_of_the_temporary_files_is_not_followed(
    disk_files: DiskFiles, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / ".tmp").rmdir()
    (root / ".tmp").symlink_to(outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        disk_files.write(AT, BLOB)
    assert list(outside.iterdir()) == []
    assert names_below(root) == set()


def test_nobody_else_may_read_or_write_what_is_stored(disk_files: DiskFiles, root: Path) -> None:
    before = os.umask(0)
    try:
        disk_files.write(AT, BLOB)
    finally:
        os.umask(before)
    for path in (root, root / "garment", path_of(root).parent, path_of(root)):
        assert path.stat().st_mode & 0o027 == 0


def test_a_file_size_limit_in_the_middle_of_a_write_leaves_nothing(
    disk_files: DiskFiles, root: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            disk_files.write(AT, BLOB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert names_below(root) == set()
    disk_files.write(AT, BLOB)
    assert read(disk_files) == BLOB


def test_a_full_filesystem_in_the_middle_of_a_write_leaves_nothing(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 1 << 20) as disk:
        disk_files = DiskFiles(disk.path / "l2", NAMESPACES)
        other = Location(AT.key, 43)
        disk_files.write(other, BLOB)
        with pytest.raises(OSError, match="No space") as failed:
            disk_files.write(AT, BLOB * 2)
        assert failed.value.errno == errno.ENOSPC
        below = names_below(disk.path / "l2")
        assert below == {"garment/shirt", "garment/shirt/43.safetensors"}
        assert read(disk_files, other) == BLOB
        disk_files.close()


# ---- damage


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, len(BLOB) * 8 - 1))
def test_every_flipped_bit_is_found(disk_files: DiskFiles, root: Path, at: int) -> None:
    if not path_of(root).exists():
        disk_files.write(AT, BLOB)
    data = bytearray(BLOB)
    data[at // 8] ^= 1 << at % 8
    path_of(root).write_bytes(data)
    with pytest.raises(CorruptEntry):
        read(disk_files)


@pytest.mark.parametrize("size", [0, 1, 4096, len(BLOB) // 2, len(BLOB) - 1, len(BLOB) + 1])
def test_a_file_of_another_length_is_corrupt(disk_files: DiskFiles, root: Path, size: int) -> None:
    disk_files.write(AT, BLOB)
    os.truncate(path_of(root), size)
    with pytest.raises(CorruptEntry):
        read(disk_files)


def test_a_file_that_is_cut_short_while_it_is_read_is_corrupt(
    disk_files: DiskFiles, root: Path
) -> None:
    disk_files.write(AT, BLOB)
    chunks = disk_files.read_chunks(AT, len(BLOB), checksum(BLOB))
    next(chunks)
    os.truncate(path_of(root), len(BLOB) // 2)
    with pytest.raises(CorruptEntry):
        next(chunks)


def test_zeroed_pages_are_found(disk_files: DiskFiles, root: Path) -> None:
    disk_files.write(AT, BLOB)
    with open(path_of(root), "r+b") as file:
        file.seek(8192)
        file.write(bytes(4096))
    with pytest.raises(CorruptEntry):
        read(disk_files)


def test_another_entrys_file_of_the_same_length_is_corrupt(
    disk_files: DiskFiles, root: Path
) -> None:
    disk_files.write(AT, BLOB)
    other = Location(EntryKey("garment", "coat"), 43)
    disk_files.write(other, BLOB[::-1])
    os.replace(path_of(root, other), path_of(root))
    with pytest.raises(CorruptEntry):
        read(disk_files)


def test_the_bytes_that_are_handed_on_are_those_that_were_hashed(
    disk_files: DiskFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the bytes in the buffer: a second, right read would not help the caller."""
    disk_files.write(AT, BLOB)
    readv = os.readv

    def damaging(fd: int, buffers: list[memoryview]) -> int:
        count = readv(fd, buffers)
        buffers[0][0] ^= 1
        return count

    monkeypatch.setattr(os, "readv", damaging)
    with pytest.raises(CorruptEntry):
        read(disk_files)


def test_a_file_that_is_gone_is_not_found(disk_files: DiskFiles, root: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(disk_files)
    disk_files.write(AT, BLOB)
    # V2's clean-up: find -type f -mtime +7 -delete. The directory stays.
    path_of(root).unlink()
    with pytest.raises(FileNotFoundError):
        read(disk_files)


# ---- planted names


def plant(path: Path, kind: str, outside: Path) -> None:
    if kind == "symlink":
        path.symlink_to(outside)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_planted_at_a_files_place_is_neither_followed_nor_waited_for(
    disk_files: DiskFiles, root: Path, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(BLOB)
    path_of(root).parent.mkdir()
    plant(path_of(root), kind, outside)
    with pytest.raises((OSError, CorruptEntry)):
        read(disk_files)
    disk_files.quarantine(AT)
    assert outside.read_bytes() == BLOB
    assert not path_of(root).exists()
    disk_files.write(AT, BLOB)
    assert read(disk_files) == BLOB


@pytest.mark.parametrize("kind", ["symlink", "fifo"])
def test_what_is_planted_at_an_ids_directory_is_not_followed(
    disk_files: DiskFiles, root: Path, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "42.safetensors").write_bytes(BLOB)
    plant(root / "garment" / "shirt", kind, outside)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        read(disk_files)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        disk_files.write(Location(AT.key, 43), BLOB)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        disk_files.remove(AT)
    assert [p.name for p in outside.iterdir()] == ["42.safetensors"]
    assert list((root / ".tmp").iterdir()) == []


def test_quarantine_does_not_follow_a_planted_directory(
    disk_files: DiskFiles, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "42.safetensors").write_bytes(b"somebody else's")
    (root / "garment" / "shirt").symlink_to(outside)
    with contextlib.suppress(OSError):
        disk_files.quarantine(AT)
    assert (outside / "42.safetensors").read_bytes() == b"somebody else's"


@pytest.mark.parametrize("name", [".tmp", ".quarantine", "garment"])
def test_a_planted_link_in_the_root_stops_the_start(root: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    root.mkdir()
    (root / name).symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigError):
        DiskFiles(root, NAMESPACES)


@pytest.mark.parametrize("deleted", [".tmp", ".quarantine"])
def test_a_root_is_known_to_have_been_used_although_one_of_our_directories_was_deleted(
    root: Path, deleted: str
) -> None:
    first = DiskFiles(root, NAMESPACES)
    assert not first.was_used
    first.close()
    (root / deleted).rmdir()
    second = DiskFiles(root, NAMESPACES)
    assert second.was_used
    second.close()


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_what_is_planted_among_the_temporary_files_does_not_stop_the_start(
    root: Path, tmp_path: Path, kind: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(BLOB)
    (root / ".tmp").mkdir(parents=True)
    (root / ".tmp" / "half-written").write_bytes(BLOB)
    plant(root / ".tmp" / "planted", kind, outside)
    disk_files = DiskFiles(root, NAMESPACES)
    disk_files.close()
    assert not (root / ".tmp" / "half-written").exists()
    assert outside.read_bytes() == BLOB


def test_a_root_that_another_daemon_owns_is_a_config_error(
    disk_files: DiskFiles, root: Path
) -> None:
    with pytest.raises(ConfigError, match="another cachesvc daemon"):
        DiskFiles(root, NAMESPACES)


# ---- unlinking


def test_the_last_file_of_an_id_takes_its_directory_along(
    disk_files: DiskFiles, root: Path
) -> None:
    second = Location(AT.key, 43)
    disk_files.write(AT, BLOB)
    disk_files.write(second, BLOB)
    disk_files.remove(AT)
    assert names_below(root) == {"garment/shirt", "garment/shirt/43.safetensors"}
    disk_files.remove(second, durable=True)
    assert names_below(root) == set()


def test_removing_what_is_absent_is_fine(disk_files: DiskFiles) -> None:
    disk_files.remove(AT)
    disk_files.remove(AT, durable=True)


def test_a_directory_with_foreign_names_stays(disk_files: DiskFiles, root: Path) -> None:
    disk_files.write(AT, BLOB)
    (root / "garment" / "shirt" / "garm_img.png").write_bytes(b"V2's own")
    disk_files.remove(AT)
    assert names_below(root) == {"garment/shirt", "garment/shirt/garm_img.png"}


def test_a_damaged_file_is_set_aside_whole(disk_files: DiskFiles, root: Path) -> None:
    disk_files.write(AT, BLOB)
    disk_files.quarantine(AT)
    (kept,) = (root / ".quarantine").iterdir()
    assert kept.read_bytes() == BLOB
    assert not path_of(root).parent.exists()


def test_the_quarantine_is_bounded_and_the_oldest_give_way(
    disk_files: DiskFiles, root: Path
) -> None:
    for generation in range(1, MAX_FILES + 4):
        at = Location(AT.key, generation)
        disk_files.write(at, b"damaged")
        os.utime(path_of(root, at), (generation, generation))
        disk_files.quarantine(at)
    left = {int(p.name.rsplit(".", 1)[1]) for p in (root / ".quarantine").iterdir()}
    assert left == set(range(4, MAX_FILES + 4))


def test_a_quarantined_name_that_another_thread_has_just_trimmed_is_no_error(
    disk_files: DiskFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A: lists the quarantine | B: trims its oldest name | A: asks for that name's age
    listdir = os.listdir
    disk_files.write(AT, BLOB)
    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", lambda fd: [*listdir(fd), "trimmed meanwhile"])
        disk_files.quarantine(AT)
    assert not path_of(root).exists()
    assert len(list((root / ".quarantine").iterdir())) == 1


def test_a_quarantine_that_was_deleted_is_made_again(disk_files: DiskFiles, root: Path) -> None:
    (root / ".quarantine").rmdir()
    disk_files.write(AT, BLOB)
    disk_files.quarantine(AT)
    (kept,) = (root / ".quarantine").iterdir()
    assert kept.read_bytes() == BLOB
    assert not path_of(root).exists()


def test_the_walk_finds_our_files_and_counts_foreign_names(
    disk_files: DiskFiles, root: Path
) -> None:
    disk_files.write(AT, BLOB)
    (root / "garment" / "shirt" / "notes.txt").touch()
    (root / "garment" / "shirt" / "43.safetensors.bak").touch()
    (root / "garment" / "a file").touch()
    (root / "garment" / ".hidden").mkdir()
    (root / "garment" / ".hidden" / "44.safetensors").touch()
    (root / "garment" / "link").symlink_to(root / "text")
    found = list(disk_files.walk("garment"))
    assert [at for at in found if at is not None] == [AT]
    assert found.count(None) == 5


def test_a_write_survives_the_removal_of_its_directory_with_an_older_generation() -> None:
    """Promise 1: otherwise a Put whose write fails would be answered without being stored.

    A: makes the id's directory | B: unlinks the older file, removes the empty directory | A: opens
    it
    """
    written = SimpleQueue[int]()

    def remove_all(disk_files: DiskFiles) -> None:
        while generation := written.get():
            disk_files.remove(Location(AT.key, generation))

    with (
        tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as root,
        contextlib.closing(DiskFiles(Path(root), NAMESPACES)) as disk_files,
        ThreadPoolExecutor(1) as pool,
    ):
        removing = pool.submit(remove_all, disk_files)
        try:
            for generation in range(1, 10_000):
                disk_files.write(Location(AT.key, generation), b"x")
                written.put(generation)
        finally:
            written.put(0)
        removing.result()
        assert list(disk_files.walk(AT.key.namespace)) == []


def test_a_durable_removal_syncs_the_directory_behind_the_unlink(
    disk_files: DiskFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 1. If the catalog cannot be written, the unlink alone makes an invalidation final."""
    done: list[str] = []
    disk_files.write(AT, BLOB)
    unlink, fsync, folder = os.unlink, os.fsync, path_of(root).parent.stat()

    def unlinked(*args: Any, **more: Any) -> None:
        unlink(*args, **more)
        done.append("unlinked")

    def synced(fd: int) -> None:
        fsync(fd)
        if os.path.samestat(os.fstat(fd), folder):
            done.append("synced")

    monkeypatch.setattr(os, "unlink", unlinked)
    monkeypatch.setattr(os, "fsync", synced)
    disk_files.remove(AT, durable=True)
    assert done == ["unlinked", "synced"]
