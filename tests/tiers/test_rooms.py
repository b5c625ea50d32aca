"""What does L1 do when other processes take the room, the inodes or the descriptors? Promise 5.

L1 becomes smaller: the least recently used entry is evicted, the new entry is stored. The
filesystems are small tmpfs mounts.
"""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.core.errors import ConfigError, MemoryFull
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.tiers.descriptors import LEAST_FOR_L1, LEAST_RESERVE, files_of_l1
from cachesvc.tiers.memory import MemoryTier
from cachesvc.tiers.rooms import Room
from cachesvc.tiers.shared_files import SharedFile
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

MIB = 1 << 20
SIZE_BYTES = MIB


class Tier:
    """An L1 that stores as the engine does: if tmpfs is full, it makes room and writes again."""

    def __init__(self, path: Path, max_bytes: int = 8 * MIB, **more: int) -> None:
        self.path = path
        self.removed: list[tuple[str, Leaving]] = []
        self.memory = MemoryTier(
            path,
            {"garment": NamespaceLimits(20_000)},
            max_bytes,
            on_leaving=lambda entry, cause: self.removed.append((entry.key.id, cause)),
            **more,
        )
        self._generation = 0

    def store(self, name: str, data: bytes = b"x" * SIZE_BYTES) -> bool:
        """Return whether the entry was stored in L1."""
        key = EntryKey("garment", name)
        room = self.memory.reserve(key, len(data))
        try:
            self.memory.write(room, (data,))
        except MemoryFull:
            self.memory.make_room(room)
            self.memory.write(room, (data,))
        self._generation += 1
        meta = meta_of(key, data, generation=self._generation)
        return self.memory.publish(room, meta, accesses=0, steady_ns=START_NS) is not None

    def names(self) -> list[str]:
        """Return the ids of the entries, the least recently used first."""
        return [entry.key.id for entry in self.memory.index]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    with small_filesystem(tmp_path / "small", 16 * MIB) as disk:
        yield disk


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as name:
        yield Path(name) / "l1"


# ---- bytes


def test_where_others_fill_tmpfs_what_was_used_least_leaves(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1")
    for name in ("idle", "used", "new"):
        tier.store(name)
    entry = tier.memory.lookup(EntryKey("garment", "idle"), START_NS)
    assert entry is not None
    tier.memory.record_use(entry, START_NS)
    del entry
    disk.fill()
    assert tier.store("hot")
    assert tier.names() == ["new", "idle", "hot"]
    assert tier.removed == [("used", Leaving.TMPFS_FULL)]
    for number in range(10):  # and so for each further entry
        assert tier.store(f"hot {number}")
    assert len(tier.names()) == 3
    tier.memory.close()


def test_the_limit_in_force_is_what_tmpfs_has_left(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1")
    tier.store("one")
    assert tier.memory.room_bytes(tier.memory.filesystem_free_bytes()) == 8 * MIB
    disk.fill()
    assert tier.memory.room_bytes(tier.memory.filesystem_free_bytes()) == SIZE_BYTES
    tier.memory.close()


def test_spare_files_give_way_before_any_entry(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1", spare_bytes=4 * MIB)
    tier.store("kept")
    tier.memory.spares.finish()
    assert tier.memory.spares.ready_bytes == SIZE_BYTES
    disk.fill()
    # Too large for the spare file, so that the spare file cannot simply be used.
    assert tier.store("other", b"x" * (SIZE_BYTES // 4))
    assert tier.names() == ["kept", "other"]
    assert tier.removed == []
    tier.memory.close()


def test_what_finds_no_room_after_that_goes_to_the_heap(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1")
    tier.store("small", b"x" * 4096)
    disk.fill()
    room = tier.memory.reserve(EntryKey("garment", "large"), SIZE_BYTES)
    chunks_asked: list[int] = []

    def chunks() -> Iterator[bytes]:
        chunks_asked.append(1)
        yield b"x" * SIZE_BYTES

    with pytest.raises(MemoryFull):
        tier.memory.write(room, chunks())
    assert chunks_asked == [], "a stream from L2 can be read only once"
    tier.memory.make_room(room)
    tier.memory.write(room, chunks())
    assert room.blob is not None
    assert not isinstance(room.blob, SharedFile)
    tier.memory.discard(room)
    tier.memory.close()


def test_entries_that_readers_have_are_not_all_evicted_in_vain(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1")
    for number in range(7):
        tier.store(f"read {number}")
    held = [os.open(tier.path / name, os.O_RDONLY) for name in os.listdir(tier.path)]
    disk.fill()
    assert not tier.store("hot")
    assert len(tier.names()) == 3
    for fd in held:
        os.close(fd)
    tier.memory.close()


# ---- inodes


def test_where_others_use_up_the_inodes_what_was_used_least_leaves(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 16 * MIB, inodes=30) as disk:
        tier = Tier(disk.path / "l1")
        for number in range(10):
            assert tier.store(f"idle {number}", b"x" * 4096)
        for number in range(30):
            try:
                (disk.path / f"others {number}").touch()
            except OSError:
                break
        for number in range(100):
            assert tier.store(f"hot {number}", b"x" * 4096)
        assert 5 <= len(tier.names()) <= 10
        assert {cause for _, cause in tier.removed} == {Leaving.TMPFS_FULL}
        tier.memory.close()


# ---- descriptors


def test_l1_keeps_to_its_descriptors_by_evicting(directory: Path) -> None:
    tier = Tier(directory, max_files=5, spare_bytes=4 * MIB)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        assert tier.store(f"{number}", b"x" * (MIB // 2))
        tier.memory.spares.finish()
        assert len(os.listdir("/proc/self/fd")) <= before + 6  # the listing itself opens one
    assert {cause for _, cause in tier.removed} == {Leaving.DESCRIPTORS}
    assert tier.memory.descriptors <= 5
    tier.memory.close()


def test_entries_that_readers_have_are_not_all_evicted_for_a_descriptor(directory: Path) -> None:
    tier = Tier(directory, max_files=10)
    for number in range(10):
        tier.store(f"{number}", b"x" * 100)
    held = [os.open(tier.path / name, os.O_RDONLY) for name in os.listdir(tier.path)]
    assert not tier.store("hot", b"x" * 100)
    assert len(tier.names()) >= 6
    for fd in held:
        os.close(fd)
    tier.memory.step(START_NS)
    assert tier.store("hot", b"x" * 100)
    tier.memory.close()


def test_rooms_that_are_being_written_have_descriptors_too(directory: Path) -> None:
    tier = Tier(directory, max_files=3)
    rooms = [tier.memory.reserve(EntryKey("garment", name), 100) for name in "abcd"]
    assert [bool(room.name) for room in rooms] == [True, True, True, False]
    for room in rooms:
        tier.memory.discard(room)
    assert tier.memory.descriptors == 0
    tier.memory.close()


def test_without_any_descriptor_left_an_entry_is_evicted_for_its_own(directory: Path) -> None:
    tier = Tier(directory)
    for name in ("idle", "used"):
        tier.store(name, b"x" * 4096)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = tier.memory.reserve(EntryKey("garment", "hot"), 4096)
    with _no_descriptor_left():
        with pytest.raises(MemoryFull):
            tier.memory.write(room, (b"x" * 4096,))
        tier.memory.make_room(room)
        tier.memory.write(room, (b"x" * 4096,))
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
    assert isinstance(room.blob, SharedFile)
    assert tier.names() == ["used"]
    _discard(tier, room)
    tier.memory.close()


class _no_descriptor_left:  # noqa: N801 - reads like a sentence
    def __enter__(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, self._limits[1]))
        self._taken: list[int] = []
        try:
            while True:
                self._taken.append(os.dup(2))
        except OSError:
            pass

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
        for fd in self._taken:
            os.close(fd)


def _discard(tier: Tier, room: Room) -> None:
    tier.memory.discard(room)
    tier.memory.spares.finish()


def test_ten_thousand_small_entries_fit_a_limit_of_twenty_thousand_files(directory: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, limits[1]))
    try:
        tier = Tier(directory, max_bytes=64 * MIB, max_files=files_of_l1())
        for number in range(10_000):
            assert tier.store(f"{number}", b"x" * 100)
        assert tier.removed == []
        tier.memory.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("limit", [256, 1024, 20_000, 1 << 30])
def test_a_part_of_the_descriptors_is_kept_back(limit: int) -> None:
    kept_back = limit - files_of_l1(limit)
    assert kept_back >= max(LEAST_RESERVE, limit // 4)


def test_a_limit_that_leaves_l1_next_to_nothing_is_an_error_that_says_what_to_do() -> None:
    least = LEAST_RESERVE + LEAST_FOR_L1
    assert files_of_l1(least) == LEAST_FOR_L1
    with pytest.raises(ConfigError, match="LimitNOFILE"):
        files_of_l1(least - 1)
