"""Do spare files, made beforehand, change anything but the time?

Promises 1 (the link count is the token of any file), 2 (an entry has its own length, whatever file
it was written to), 5 (spare bytes are inside L1's limit and keep no entry out) and 9 (no litter
after kill -9). The files are in a real tmpfs.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.core.errors import CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.tiers import files, spares
from cachesvc.tiers.memory import MemoryEntry, MemoryTier
from cachesvc.tiers.spares import LEAST_BYTES, MAX_SPARES, can_name_unnamed
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of
from tests.support.engine.mounts import SmallFilesystem, small_filesystem

KEY = EntryKey("garment", "shirt")
OTHER = EntryKey("garment", "coat")
MIB = 1 << 20
PAGE = 4096
TraceFunction = Callable[[FrameType, str, Any], Any]


class Tier:
    """An L1 with spare files."""

    def __init__(self, path: Path, max_bytes: int = 8 * MIB, spare_bytes: int = 4 * MIB) -> None:
        self.path = path
        self.memory = MemoryTier(
            path,
            {"garment": NamespaceLimits(100)},
            max_bytes,
            on_leaving=lambda entry, cause: None,
            spare_bytes=spare_bytes,
        )
        self._generation = 0

    @property
    def ready_bytes(self) -> int:
        return self.memory.spares.ready_bytes

    def store(self, key: EntryKey, data: bytes) -> MemoryEntry | None:
        self._generation += 1
        room = self.memory.reserve(key, len(data))
        self.memory.write(room, (data,))
        meta = meta_of(key, data, generation=self._generation)
        return self.memory.publish(room, meta, accesses=0, steady_ns=START_NS)

    def store_with_spare(self, size_bytes: int) -> None:
        """Store an entry, and return when a spare file of the same size is ready."""
        self.store(OTHER, bytes(size_bytes))
        self.memory.spares.finish()
        assert self.ready_bytes == size_bytes

    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as name:
        yield Path(name) / "l1"


@pytest.fixture
def tier(directory: Path) -> Iterator[Tier]:
    tier = Tier(directory)
    yield tier
    tier.memory.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallFilesystem]:
    with small_filesystem(tmp_path / "small", 16 * MIB) as disk:
        yield disk


# ---- entries written to a spare file


@pytest.mark.parametrize(
    "size_bytes", [MIB, MIB - 1, MIB // 2, MIB // 2 + 1, MIB + 1, 2 * MIB - 1, 2 * MIB]
)
def test_an_entry_in_a_spare_file_is_exactly_as_long_as_it_is(tier: Tier, size_bytes: int) -> None:
    tier.store_with_spare(MIB)
    data = os.urandom(size_bytes)
    room = tier.memory.reserve(KEY, size_bytes)
    assert room.spare, "the entry must be in the spare file"
    tier.memory.write(room, (data[:1000], data[1000:]))
    entry = tier.memory.publish(room, meta_of(KEY, data), accesses=0, steady_ns=START_NS)
    assert entry is not None
    path = tier.path / entry.blob.name
    assert path.read_bytes() == data == bytes(entry.view())
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o440
    assert status.st_nlink == 1
    assert status.st_blocks * 512 == -(-size_bytes // PAGE) * PAGE, "the rest must be cut off"


@pytest.mark.parametrize("size_bytes", [MIB // 2 - 1, 2 * MIB + 1])
def test_a_spare_file_of_quite_another_size_is_left_for_others(tier: Tier, size_bytes: int) -> None:
    tier.store_with_spare(MIB)
    room = tier.memory.reserve(KEY, size_bytes)
    assert not room.spare
    assert tier.ready_bytes == MIB
    tier.memory.discard(room)


def test_the_nearest_in_size_is_taken(tier: Tier) -> None:
    for size_bytes in (MIB, MIB + MIB // 2):
        tier.memory.spares.prepare(size_bytes, tier.memory.free_bytes)
    tier.memory.spares.finish()
    room = tier.memory.reserve(KEY, MIB + MIB // 8)
    assert [spare.size_bytes for spare in room.spare] == [MIB]
    tier.memory.discard(room)


def test_a_spare_file_has_no_name_until_it_is_an_entry(tier: Tier) -> None:
    tier.store_with_spare(MIB)
    before = tier.names()
    room = tier.memory.reserve(KEY, MIB)
    assert tier.names() == before

    def chunks() -> Iterator[bytes]:
        yield bytes(MIB)
        assert tier.names() == before
        raise CorruptEntry("a wrong checksum")

    with pytest.raises(CorruptEntry):
        tier.memory.write(room, chunks())
    tier.memory.discard(room)
    assert tier.names() == before


def test_a_reader_of_what_was_a_spare_file_is_seen(tier: Tier) -> None:
    tier.store_with_spare(MIB)
    before = set(tier.names())
    tier.store(KEY, bytes(MIB))
    (name,) = set(tier.names()) - before
    script = "import os, sys; os.open(sys.argv[1], os.O_RDONLY); print(flush=True); input()"
    command = [sys.executable, "-c", script, tier.path / name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline()
        tier.memory.remove(KEY, Leaving.INVALIDATED)
        assert name not in tier.names()
        assert tier.memory.held_bytes == MIB
        reader.communicate(b"\n")
    tier.memory.step(START_NS)
    assert tier.memory.held_bytes == 0


# ---- read from another thread


def _read_interrupted(
    read: Callable[[], int], interrupt: Callable[[], object], at_event: int
) -> bool:
    """Run `read` in a thread; call `interrupt` here when it reaches its nth line in spares.py.

    The thread does not stop inside what these lines call, which may hold a lock. Return whether it
    came to the nth line.
    """
    reached, resumed = threading.Event(), threading.Event()
    events = 0

    def trace(frame: FrameType, event: str, argument: object) -> TraceFunction:
        nonlocal events
        if frame.f_code.co_filename == spares.__file__:
            events += 1
            if events == at_event:
                reached.set()
                resumed.wait()
        return trace

    def run() -> None:
        sys.settrace(trace)
        try:
            read()
        finally:
            sys.settrace(None)
            ended.set_result(events >= at_event)
            reached.set()

    ended: Future[bool] = Future()
    thread = threading.Thread(target=run)
    thread.start()
    reached.wait()
    interrupt()
    resumed.set()
    thread.join()
    return ended.result()


@pytest.mark.parametrize("what", ["ready_bytes", "leaving_bytes"])
def test_a_spare_file_taken_while_its_bytes_are_read_elsewhere_is_taken_once(
    directory: Path, what: str
) -> None:
    """A miss interrupts the reader at each of its lines in turn."""
    for at_event in range(1, 1000):
        tier = Tier(directory)
        tier.store_with_spare(MIB)
        read = functools.partial(getattr, tier.memory.spares, what)
        miss = functools.partial(tier.store, KEY, b"A" * MIB)
        was_interrupted = _read_interrupted(read, miss, at_event)
        assert tier.ready_bytes == MIB, "the miss left one spare file"
        mine = tier.memory.lookup(KEY, START_NS)
        others = tier.store(EntryKey("garment", "others"), b"B" * MIB)
        assert mine is not None
        assert others is not None
        assert (bytes(mine.view()[:2]), bytes(others.view()[:2])) == (b"AA", b"BB")
        tier.memory.close()
        if not was_interrupted:
            break
    assert at_event > 5


# ---- limits


def test_spare_files_are_bounded_in_number_and_bytes(tier: Tier) -> None:
    for _ in range(MAX_SPARES + 2):
        tier.store(KEY, bytes(LEAST_BYTES))
    assert tier.ready_bytes <= MAX_SPARES * LEAST_BYTES
    for _ in range(4):
        tier.store(KEY, bytes(2 * MIB))
        assert tier.ready_bytes <= 4 * MIB
    tier.store(OTHER, bytes(LEAST_BYTES - 1))
    assert tier.ready_bytes % MIB == 0, "a small entry needs no spare file"


def test_without_bytes_for_them_there_are_none(directory: Path) -> None:
    tier = Tier(directory, spare_bytes=0)
    tier.store(KEY, bytes(MIB))
    assert tier.ready_bytes == 0
    tier.memory.close()


def test_a_spare_file_gives_way_to_an_entry_and_evicts_none(tier: Tier) -> None:
    tier.store_with_spare(3 * MIB)
    # 3 MiB stored, 3 MiB spare, a limit of 8: five more fit only without the spare file.
    entry = tier.store(KEY, bytes(5 * MIB))
    assert entry is not None
    assert tier.ready_bytes == 0
    assert len(tier.memory.index) == 2
    assert tier.memory.free_bytes == 0


def test_what_spare_files_take_counts_as_free_for_entries(tier: Tier) -> None:
    tier.store_with_spare(3 * MIB)
    assert tier.memory.free_bytes == 5 * MIB
    assert tier.memory.has_room(KEY, 5 * MIB)


def test_a_discarded_room_gives_its_spare_file_back(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1")
    tier.store_with_spare(MIB)
    tier.memory.discard(tier.memory.reserve(KEY, MIB))
    tier.memory.spares.finish()
    assert tier.ready_bytes == 0
    assert _taken_bytes(disk) == MIB
    tier.memory.close()


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["store", "store", "store", "remove", "discard", "fail"]),
        st.sampled_from("abcd"),
        st.integers(1, 3 * MIB),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps=_STEPS)
def test_tmpfs_never_holds_more_than_l1s_limit(steps: list[tuple[str, str, int]]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="cachesvc-test-") as folder,
        small_filesystem(Path(folder) / "small", 16 * MIB) as disk,
    ):
        # Each file's last page is not full.
        most_bytes = 6 * MIB + 20 * PAGE
        tier = Tier(disk.path / "l1", max_bytes=6 * MIB)
        for action, entry_id, size_bytes in steps:
            key = EntryKey("garment", entry_id)
            if action == "store":
                before = {entry.key for entry in tier.memory.index} | {key}
                assert tier.store(key, bytes(size_bytes)) is not None, (
                    "spare files took the entry's room"
                )
                assert {entry.key for entry in tier.memory.index} <= before
            elif action == "remove":
                tier.memory.remove(key, Leaving.INVALIDATED)
            else:
                room = tier.memory.reserve(key, size_bytes)
                if action == "fail":
                    with pytest.raises(CorruptEntry):
                        tier.memory.write(room, _failing_chunks(size_bytes))
                tier.memory.discard(room)
            assert _taken_bytes(disk) <= most_bytes
            assert tier.memory.index.used_bytes + tier.ready_bytes <= 6 * MIB
        tier.memory.spares.finish()
        assert tier.memory.spares.leaving_bytes == 0
        expected_bytes = tier.memory.index.used_bytes + tier.ready_bytes
        assert expected_bytes <= _taken_bytes(disk) <= expected_bytes + 20 * PAGE
        tier.memory.close()
        assert _taken_bytes(disk) == 0


def _failing_chunks(size_bytes: int) -> Iterator[bytes]:
    yield bytes(size_bytes // 2)
    raise CorruptEntry("a wrong checksum")


def _taken_bytes(disk: SmallFilesystem) -> int:
    usage = os.statvfs(disk.path)
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


def test_no_spare_file_is_made_where_l1_has_no_room_for_it(tier: Tier) -> None:
    tier.store(KEY, bytes(5 * MIB))
    assert tier.ready_bytes == 0
    tier.memory.spares.prepare(2 * MIB, free_bytes=3 * MIB)
    tier.memory.spares.prepare(3 * MIB, free_bytes=3 * MIB)
    assert tier.ready_bytes == 3 * MIB


@pytest.mark.parametrize("spare_bytes", [0, 2 * MIB])
def test_pages_that_are_still_being_freed_are_waited_for(
    disk: SmallFilesystem, spare_bytes: int
) -> None:
    tier = Tier(disk.path / "l1", max_bytes=4 * MIB, spare_bytes=spare_bytes)
    tier.store(OTHER, bytes(2 * MIB))
    tier.memory.spares.finish()
    room = tier.memory.reserve(KEY, 3 * MIB)
    assert tier.names() == []
    assert [spare.size_bytes for spare in room.spare] == [2 * MIB] * bool(spare_bytes)

    def chunks() -> Iterator[bytes]:
        assert _taken_bytes(disk) == 3 * MIB, "the evicted entry's pages must be free"
        yield bytes(3 * MIB)

    tier.memory.write(room, chunks())
    assert room.blob is not None
    tier.memory.discard(room)
    tier.memory.close()


# ---- where spare files are impossible


def _fill_the_disk(disk: SmallFilesystem) -> None:
    disk.fill()


def _remove_the_directory(disk: SmallFilesystem) -> None:
    (disk.path / "l1").rename(disk.path / "gone")
    for path in (disk.path / "gone").iterdir():
        path.unlink()
    (disk.path / "gone").rmdir()


@pytest.mark.parametrize(
    ("break_it", "size_bytes"), [(_fill_the_disk, 2 * MIB), (_remove_the_directory, MIB)]
)
def test_a_spare_file_that_cannot_become_an_entry_leaves_the_bytes_on_the_heap(
    disk: SmallFilesystem, break_it: Callable[[SmallFilesystem], None], size_bytes: int
) -> None:
    tier = Tier(disk.path / "l1")
    tier.store_with_spare(MIB)
    room = tier.memory.reserve(KEY, size_bytes)
    assert room.spare
    break_it(disk)
    data = os.urandom(size_bytes)
    room.is_last_try = True  # the engine sets this after it has evicted all that it can
    tier.memory.write(room, (data,))
    assert room.blob is not None
    assert room.blob.shared_name is None
    assert bytes(room.blob.view()) == data
    tier.memory.discard(room)


def test_a_full_tmpfs_has_no_spare_files_and_counts_none(disk: SmallFilesystem) -> None:
    tier = Tier(disk.path / "l1")
    tier.store(KEY, bytes(MIB))
    tier.memory.spares.finish()
    disk.fill()
    tier.memory.spares.prepare(2 * MIB, tier.memory.free_bytes)
    tier.memory.spares.finish()
    assert tier.ready_bytes == MIB
    tier.memory.close()


@contextmanager
def _no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_there_are_no_spare_files(tier: Tier) -> None:
    with _no_descriptor_left():
        tier.memory.spares.prepare(MIB, tier.memory.free_bytes)
        tier.memory.spares.finish()
    assert tier.ready_bytes == 0


# An unnamed file gets its name through /proc. Without /proc, no filesystem has unnamed files.
WITHOUT_PROC = """
import sys
from pathlib import Path
from tests.tiers.test_spares import KEY, MIB, OTHER, Tier
tier = Tier(Path(sys.argv[1]))
assert tier.store(OTHER, bytes(MIB)) is not None
tier.memory.spares.finish()
assert tier.ready_bytes == 0, "there were to be no spare files"
entry = tier.store(KEY, b"x" * MIB)
assert (tier.path / entry.blob.name).read_bytes() == b"x" * MIB == bytes(entry.view())
print("stored and read")
tier.memory.close()
"""


def test_a_filesystem_without_unnamed_files_has_entries_all_the_same(directory: Path) -> None:
    # FUSE and 9p are such filesystems; procfs is one that is always mounted.
    fd = os.open("/proc/self", files.DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    try:
        assert not can_name_unnamed(fd)
    finally:
        os.close(fd)
    hide_proc = ["unshare", "--mount", "sh", "-c", 'umount --lazy /proc && exec "$@"', "sh"]
    if subprocess.run([*hide_proc, "true"], check=False, capture_output=True).returncode:
        pytest.skip("hiding /proc from a process needs root")
    command = [*hide_proc, sys.executable, "-c", WITHOUT_PROC, directory]
    environment = os.environ | {"PYTHONPATH": ".:client"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout) == (0, "stored and read\n"), done.stderr


# ---- the end


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.tiers.test_spares import MIB, OTHER, Tier
tier = Tier(Path(sys.argv[1]))
tier.store_with_spare(MIB)
room = tier.memory.reserve(OTHER, MIB)
def chunks():
    yield bytes(MIB // 2)
    os.kill(os.getpid(), signal.SIGKILL)
tier.memory.write(room, chunks())
"""


def test_a_killed_daemon_leaves_no_spare_file_behind(disk: SmallFilesystem) -> None:
    command = [sys.executable, "-c", KILLED, disk.path / "l1"]
    environment = os.environ | {"PYTHONPATH": ".:client"}
    ended = subprocess.run(command, check=False, env=environment)
    assert ended.returncode == -signal.SIGKILL
    (left,) = (disk.path / "l1").iterdir()
    assert _taken_bytes(disk) == left.stat().st_size == MIB
    Tier(disk.path / "l1").memory.close()
    assert _taken_bytes(disk) == 0
