"""Is L1's file the truth: unlinked once it may not be served, and never above the limit?

Promises 1, 5 and 9. The files are in a real tmpfs.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import ConfigError
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from cachesvc.tiers.memory import MemoryEntry, MemoryTier
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of
from tests.support.engine.mounts import small_filesystem

KEY = EntryKey("garment", "shirt")
OTHER = EntryKey("garment", "coat")
KIB = 1024
LIMITS = {"garment": NamespaceLimits(3), "text": NamespaceLimits(10, max_bytes=8 * KIB)}

# Maps the file named on its command line, and unmaps it when its input ends.
READER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
pages = mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)
os.close(fd)
print("mapped", flush=True)
sys.stdin.read()
print(len(set(pages[:])), flush=True)
"""


class Tier:
    """A tier in a directory of its own; it records which entries left, and why."""

    def __init__(self, path: Path, max_bytes: int = 64 * KIB, **more: bool) -> None:
        self.path = path
        self.removed: list[tuple[str, Leaving]] = []
        self.memory = MemoryTier(
            path,
            LIMITS,
            max_bytes,
            on_leaving=lambda entry, cause: self.removed.append((entry.key.id, cause)),
            **more,
        )
        self._generation = 0

    def store(
        self, key: EntryKey = KEY, data: bytes = b"x" * KIB, ttl_s: float | None = None
    ) -> MemoryEntry | None:
        self._generation += 1
        room = self.memory.reserve(key, len(data))
        self.memory.write(room, (data,))
        meta = meta_of(key, data, generation=self._generation, explicit_ttl_s=ttl_s)
        return self.memory.publish(room, meta, accesses=0, steady_ns=START_NS)

    def held(self, key: EntryKey) -> bool:
        return self.memory.lookup(key, START_NS) is not None

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))

    def path_of(self, key: EntryKey) -> Path:
        """Return the path of the entry's file. A reference to the entry itself would count as an
        answer.
        """
        entry = self.memory.lookup(key, START_NS)
        assert entry is not None
        return self.path / entry.blob.name

    @contextmanager
    def reader(self, key: EntryKey = KEY) -> Iterator[subprocess.Popen[str]]:
        """Run another process that has the entry's file mapped."""
        with subprocess.Popen(
            [sys.executable, "-c", READER, self.path_of(key)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "mapped\n"
            yield process


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as name:
        yield Path(name) / "l1"


@pytest.fixture
def tier(directory: Path) -> Iterator[Tier]:
    tier = Tier(directory)
    yield tier
    tier.memory.close()


# ---- the file is the truth


def test_a_published_entry_is_one_read_only_file(tier: Tier) -> None:
    entry = tier.store(data=b"bytes")
    assert entry is not None
    path = tier.path / entry.blob.name
    assert path.read_bytes() == b"bytes"
    assert stat.S_IMODE(path.stat().st_mode) == 0o440
    assert bytes(entry.view()) == b"bytes"
    assert entry.view().readonly


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_files_mode_does_not_depend_on_the_umask(tier: Tier, umask: int) -> None:
    before = os.umask(umask)
    try:
        entry = tier.store()
    finally:
        os.umask(before)
    assert entry is not None
    assert stat.S_IMODE((tier.path / entry.blob.name).stat().st_mode) == 0o440


def _replace(tier: Tier) -> None:
    tier.store(KEY, b"new")


def _evict(tier: Tier) -> None:
    for name in ("a", "b", "c"):
        tier.store(EntryKey("garment", name))


def _expire_by_lookup(tier: Tier) -> None:
    tier.memory.lookup(KEY, START_NS + 60 * NS_PER_S)


def _expire_by_step(tier: Tier) -> None:
    tier.memory.step(START_NS + 60 * NS_PER_S)


def _invalidate(tier: Tier) -> None:
    assert tier.memory.remove_covered(key_scope(KEY)) == [KEY]


EVERY_WAY_TO_LEAVE = pytest.mark.parametrize(
    ("leave", "cause"),
    [
        (_replace, Leaving.REPLACED),
        (_evict, Leaving.ENTRIES_LIMIT),
        (_expire_by_lookup, Leaving.EXPIRED),
        (_expire_by_step, Leaving.EXPIRED),
        (_invalidate, Leaving.INVALIDATED),
    ],
    ids=["replace", "evict", "expire by lookup", "expire by step", "invalidate"],
)


@EVERY_WAY_TO_LEAVE
def test_an_entry_that_leaves_is_unlinked_in_the_same_call(
    tier: Tier, leave: Callable[[Tier], None], cause: Leaving
) -> None:
    entry = tier.store(data=b"old bytes", ttl_s=60)
    assert entry is not None
    view = entry.view()
    fd = os.open(tier.path / entry.blob.name, os.O_RDONLY)
    leave(tier)
    assert os.fstat(fd).st_nlink == 0
    assert entry.blob.name not in tier.names()
    assert ("shirt", cause) in tier.removed
    # A caller that was served the entry keeps it.
    assert bytes(view) == b"old bytes"
    assert os.pread(fd, 100, 0) == b"old bytes"
    os.close(fd)


@EVERY_WAY_TO_LEAVE
def test_an_entry_whose_file_was_deleted_under_the_daemon_leaves_all_the_same(
    tier: Tier, leave: Callable[[Tier], None], cause: Leaving
) -> None:
    tier.store(data=b"old bytes", ttl_s=60)
    for name in tier.names():
        (tier.path / name).unlink()
    leave(tier)
    assert ("shirt", cause) in tier.removed
    assert tier.names() == sorted(entry.blob.name for entry in tier.memory.index)
    assert tier.memory.free_bytes == 64 * KIB - tier.memory.index.used_bytes


def test_a_room_whose_file_was_deleted_under_the_daemon_is_given_back(tier: Tier) -> None:
    room = tier.memory.reserve(KEY, KIB)
    tier.memory.write(room, (bytes(KIB),))
    (tier.path / room.name).unlink()
    tier.memory.discard(room)
    assert tier.memory.free_bytes == 64 * KIB


def test_without_its_directory_l1_serves_from_the_heap_and_ends(directory: Path) -> None:
    tier = Tier(directory)
    tier.store(OTHER)
    for name in tier.names():
        (directory / name).unlink()
    directory.rmdir()
    assert tier.store(KEY) is None, "the entry must be on the heap"
    assert tier.memory.remove_covered(Scope(ScopeKind.EVERYTHING)) == [OTHER]
    assert tier.memory.free_bytes == 64 * KIB
    tier.memory.close()


def test_an_entry_that_left_can_still_be_viewed_and_never_shows_another_file(tier: Tier) -> None:
    entry = tier.store(KEY, b"mine")
    assert entry is not None
    tier.memory.remove(KEY, Leaving.BYTES_LIMIT)
    tier.store(OTHER, b"others")  # its descriptor has the number that became free
    assert bytes(entry.view()) == b"mine"


def test_a_file_name_is_never_used_twice(tier: Tier) -> None:
    names = set()
    for _ in range(10):
        entry = tier.store()
        assert entry is not None
        names.add(entry.blob.name)
    assert len(names) == 10


def test_an_entry_is_a_miss_at_exactly_its_expiry_time(tier: Tier) -> None:
    tier.store(ttl_s=60)
    assert tier.memory.lookup(KEY, START_NS + 60 * NS_PER_S - 1) is not None
    assert tier.memory.lookup(KEY, START_NS + 60 * NS_PER_S) is None


def test_uses_move_the_expiry(tier: Tier) -> None:
    entry = tier.store()
    assert entry is not None
    first_ns = entry.expires_ns
    tier.memory.record_use(entry, START_NS, 10)
    assert entry.expires_ns - START_NS == pytest.approx(2 * (first_ns - START_NS), abs=2)
    tier.memory.record_use(entry, START_NS, 40)
    assert entry.expires_ns - START_NS == pytest.approx(4 * (first_ns - START_NS), abs=4)


def test_a_scope_removes_what_it_covers_and_nothing_else(tier: Tier) -> None:
    text = EntryKey("text", "shirt")
    for key in (KEY, OTHER, text):
        tier.store(key)
    removed = tier.memory.remove_covered(Scope(ScopeKind.CLOTHING, "shirt", ("garment", "text")))
    assert set(removed) == {KEY, text}
    assert [tier.held(key) for key in (KEY, OTHER, text)] == [False, True, False]


# ---- writing


def test_a_write_that_fails_in_the_middle_leaves_no_file_and_no_room_taken(tier: Tier) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * KIB
        raise OSError("the disk broke")

    room = tier.memory.reserve(KEY, 64 * KIB)
    with pytest.raises(OSError, match="the disk broke"):
        tier.memory.write(room, chunks())
    tier.memory.discard(room)
    assert tier.names() == []
    assert tier.store(data=bytes(64 * KIB)) is not None


def test_a_discarded_room_leaves_nothing(tier: Tier) -> None:
    room = tier.memory.reserve(KEY, KIB)
    tier.memory.write(room, (bytes(KIB),))
    tier.memory.discard(room)
    tier.memory.discard(room)
    assert tier.names() == []
    assert not tier.held(KEY)
    assert tier.store(data=bytes(64 * KIB)) is not None


def test_a_discard_after_the_publication_changes_nothing(tier: Tier) -> None:
    room = tier.memory.reserve(KEY, KIB)
    tier.memory.write(room, (bytes(KIB),))
    tier.memory.publish(room, meta_of(KEY, bytes(KIB)), accesses=0, steady_ns=START_NS)
    tier.memory.discard(room)
    assert tier.held(KEY)


# ---- limits


def test_what_is_larger_than_l1_goes_to_the_heap_and_evicts_nothing(tier: Tier) -> None:
    tier.store(OTHER)
    room = tier.memory.reserve(KEY, 64 * KIB + 1)
    tier.memory.write(room, (bytes(64 * KIB), b"x"))
    assert room.blob is not None
    assert bytes(room.blob.view()) == bytes(64 * KIB) + b"x"
    assert room.blob.view().readonly
    assert tier.held(OTHER)


def test_a_heap_entry_replaces_the_older_file_all_the_same(tier: Tier) -> None:
    tier.store(KEY)
    assert tier.store(KEY, bytes(64 * KIB + 1)) is None
    assert not tier.held(KEY)
    assert tier.names() == []


def test_room_under_way_counts_against_the_limit(tier: Tier) -> None:
    first = tier.memory.reserve(KEY, 40 * KIB)
    second = tier.memory.reserve(OTHER, 40 * KIB)
    assert first.name
    assert not second.name
    tier.memory.discard(first)
    assert tier.memory.reserve(OTHER, 40 * KIB).name


_SIZES = st.integers(1, 30 * KIB)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["garment", "text"]), st.sampled_from("abcdef"), _SIZES), max_size=30
)


@settings(max_examples=40, deadline=None)
@given(steps=_STEPS)
def test_the_files_are_the_entries_and_the_limits_hold(steps: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as name:
        tier = Tier(Path(name) / "l1")
        for namespace, entry_id, size in steps:
            tier.store(EntryKey(namespace, entry_id), bytes(size))
            index = tier.memory.index
            assert tier.names() == sorted(entry.blob.name for entry in index)
            sizes = [(tier.path / file).stat().st_size for file in tier.names()]
            assert sum(sizes) == index.used_bytes <= 64 * KIB
            assert index.usage["garment"].entries <= 3
            assert index.usage["text"].size_bytes <= 8 * KIB
        tier.memory.close()
        assert tier.names() == []


# ---- readers in other processes


def test_bytes_that_a_reader_still_maps_count_until_it_lets_go(tier: Tier) -> None:
    tier.store(data=bytes(40 * KIB))
    with tier.reader() as reader:
        tier.memory.remove(KEY, Leaving.INVALIDATED)
        assert tier.names() == []
        assert tier.memory.held_bytes == 40 * KIB
        tier.memory.step(START_NS)
        assert tier.memory.held_bytes == 40 * KIB
        # tmpfs still holds the removed entry's pages, so another of that size does not fit.
        assert tier.store(OTHER, bytes(40 * KIB)) is None
        reader.communicate()
    tier.memory.step(START_NS)
    assert tier.memory.held_bytes == 0
    assert tier.store(OTHER, bytes(40 * KIB)) is not None


def test_a_reader_that_is_killed_leaks_nothing(tier: Tier) -> None:
    tier.store(data=bytes(40 * KIB))
    with tier.reader() as reader:
        tier.memory.remove(KEY, Leaving.INVALIDATED)
        reader.kill()
    tier.memory.step(START_NS)
    assert tier.memory.held_bytes == 0


def test_an_erased_entry_reads_zeros_where_it_was_mapped(tier: Tier) -> None:
    entry = tier.store(data=bytes(range(256)) * 160)
    assert entry is not None
    with tier.reader() as reader:
        tier.memory.remove(KEY, Leaving.BYTES_LIMIT)
        tier.memory.erase(key_scope(OTHER))()
        before = entry.blob.is_erased
        tier.memory.erase(key_scope(KEY))()
        assert (before, entry.blob.is_erased) == (False, True)
        seen, _ = reader.communicate()
    assert seen == "1\n"  # one distinct byte was read, and no SIGBUS came
    assert reader.returncode == 0


def test_a_reader_of_one_entry_does_not_hold_another(tier: Tier) -> None:
    tier.store(KEY)
    tier.store(OTHER)
    with tier.reader(KEY) as reader:
        tier.memory.remove(OTHER, Leaving.INVALIDATED)
        assert tier.memory.held_bytes == 0
        reader.communicate()


# ---- the directory and its filesystem


def test_leftovers_are_removed_at_the_start(directory: Path) -> None:
    directory.mkdir()
    (directory / "1-1.safetensors").write_bytes(b"of an earlier life")
    (directory / "link").symlink_to("/etc/hostname")
    os.mkfifo(directory / "fifo")
    (directory / "planted").mkdir()
    tier = Tier(directory)
    assert tier.names() == ["planted"]
    assert tier.store() is not None
    tier.memory.close()
    assert Path("/etc/hostname").exists()


def test_a_planted_link_in_the_place_of_the_directory_is_refused(directory: Path) -> None:
    directory.symlink_to("/tmp")
    with pytest.raises(ConfigError):
        Tier(directory)


def test_too_small_a_filesystem_is_an_error_that_names_the_fix(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 1 << 20) as disk:
        with pytest.raises(ConfigError, match=r"shm-size.*CACHESVC_L1__ALLOW_HEAP"):
            Tier(disk.path / "l1", max_bytes=2 << 20)
        Tier(disk.path / "l1", max_bytes=2 << 20, allow_heap=True).memory.close()


def test_a_full_tmpfs_puts_the_bytes_on_the_heap_and_leaves_no_file(tmp_path: Path) -> None:
    with small_filesystem(tmp_path / "small", 1 << 20) as disk:
        tier = Tier(disk.path / "l1", max_bytes=900 * KIB)
        assert tier.store(OTHER) is not None
        disk.fill()
        room = tier.memory.reserve(KEY, 800 * KIB)
        room.is_last_try = True  # the engine sets this after it has evicted all that it can
        tier.memory.write(room, (bytes(400 * KIB), bytes(400 * KIB)))
        assert room.blob is not None
        assert bytes(room.blob.view()) == bytes(800 * KIB)
        meta = meta_of(KEY, bytes(800 * KIB))
        assert tier.memory.publish(room, meta, accesses=0, steady_ns=START_NS) is None
        assert len(tier.names()) == 1
        assert tier.held(OTHER)
        disk.free()
        assert tier.store(KEY, bytes(800 * KIB)) is not None
        tier.memory.close()
