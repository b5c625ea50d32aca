"""What happens to a file between the end of its entry and the end of its pages?

Promises 1 (a name that stays is never counted as invalidated), 5 (bytes that a reader holds are
counted), 9 (no reader ends the daemon) and 10 (a caller that lost its rights gets none back). The
files are in a real tmpfs, the readers are other processes.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import ConfigError
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.core.scopes import key_scope
from cachesvc.tiers import leases
from cachesvc.tiers.memory import MemoryTier
from cachesvc.tiers.shared_files import HeapBytes, SharedFile
from tests.support.clocks import START_NS
from tests.support.daemons import ROOT
from tests.support.engine.entries import meta_of
from tests.support.engine.mounts import append_only

KEY = EntryKey("garment", "shirt")
OTHER = EntryKey("garment", "coat")
KIB = 1024
# The last page is not full.
SIZE_BYTES = 40 * KIB - 100
MAX_BYTES = 128 * KIB
NOBODY = 65534


class Tier:
    """An L1 whose files belong to nobody's group; it records the reports of files that stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owing: list[bool] = []
        self.memory = MemoryTier(
            path,
            {"garment": NamespaceLimits(2)},
            MAX_BYTES,
            on_leaving=lambda entry, cause: None,
            gid=NOBODY if os.geteuid() == 0 else None,
            on_owing=lambda problem: self.owing.append(problem is not None),
        )
        self._generation = 0

    def store(self, key: EntryKey = KEY, byte: bytes = b"x", ttl_s: float | None = None) -> None:
        self._generation += 1
        data = byte * SIZE_BYTES
        room = self.memory.reserve(key, len(data))
        self.memory.write(room, (data,))
        meta = meta_of(key, data, generation=self._generation, explicit_ttl_s=ttl_s)
        self.memory.publish(room, meta, accesses=0, steady_ns=START_NS)

    def open(self, flags: int = os.O_RDONLY) -> int:
        """Open the file of KEY's entry. A reference to the entry would count as an answer."""
        entry = self.memory.lookup(KEY, START_NS)
        assert entry is not None
        return os.open(self.path / entry.blob.name, flags)

    def remove(self) -> None:
        assert self.memory.remove(KEY, Leaving.INVALIDATED)

    def finish(self) -> None:
        """Return when the thread has finished its queued work."""
        self.memory.spares.finish()
        self.memory.departures.collect()

    @property
    def taken_bytes(self) -> int:
        return MAX_BYTES - self.memory.free_bytes


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as name:
        yield Path(name) / "l1"


@pytest.fixture
def tier(directory: Path) -> Iterator[Tier]:
    tier = Tier(directory)
    yield tier
    tier.memory.close()


def _pages(fd: int) -> int:
    return os.fstat(fd).st_blocks


# ---- a name that stays


def _invalidate(tier: Tier) -> None:
    assert tier.memory.remove_covered(key_scope(KEY)) == [KEY]


def _replace(tier: Tier) -> None:
    tier.store(KEY, b"y")


def _evict(tier: Tier) -> None:
    for name in ("a", "b"):
        tier.store(EntryKey("garment", name))


def _expire_by_lookup(tier: Tier) -> None:
    assert tier.memory.lookup(KEY, START_NS + 60 * NS_PER_S) is None


def _expire_by_step(tier: Tier) -> None:
    tier.memory.step(START_NS + 60 * NS_PER_S)


EVERY_WAY_TO_LEAVE = pytest.mark.parametrize(
    "leave", [_invalidate, _replace, _evict, _expire_by_lookup, _expire_by_step]
)


@EVERY_WAY_TO_LEAVE
def test_a_file_that_cannot_be_removed_is_owed_until_it_is(
    tier: Tier, leave: Callable[[Tier], None]
) -> None:
    tier.store(ttl_s=60)
    fd = tier.open()
    with append_only(tier.path):
        leave(tier)
        assert os.fstat(fd).st_nlink == 1
        for _ in range(2):  # it stays so at each further question
            assert tier.memory.owes(key_scope(KEY))
            tier.memory.step(START_NS)
        assert not tier.memory.owes(key_scope(OTHER))
        assert tier.memory.owed_files >= 1
        assert tier.memory.held_bytes >= SIZE_BYTES
        assert tier.owing == [True]
    assert not tier.memory.owes(key_scope(KEY))
    assert os.fstat(fd).st_nlink == 0
    assert tier.owing == [True, False]
    assert tier.memory.owed_files == 0
    os.close(fd)


def test_what_is_owed_is_counted_once(tier: Tier) -> None:
    tier.store()
    with append_only(tier.path):
        tier.remove()
        for _ in range(3):
            tier.memory.step(START_NS)
            assert tier.memory.owes(key_scope(KEY))
            assert tier.taken_bytes == tier.memory.held_bytes == SIZE_BYTES
    tier.memory.step(START_NS)
    tier.memory.step(START_NS)
    tier.finish()
    assert tier.taken_bytes == tier.memory.held_bytes == 0
    assert os.listdir(tier.path) == []


def test_the_last_owed_file_ends_it_and_not_the_first(tier: Tier) -> None:
    elsewhere = tier.path.parent / "link"
    tier.store(KEY)
    tier.store(OTHER)
    entry = tier.memory.lookup(OTHER, START_NS)
    assert entry is not None
    os.link(tier.path / entry.blob.name, elsewhere)
    with append_only(tier.path):
        tier.memory.remove(KEY, Leaving.INVALIDATED)
        tier.memory.remove(OTHER, Leaving.INVALIDATED)
    assert not tier.memory.owes(key_scope(KEY))
    assert tier.owing == [True, True]
    elsewhere.unlink()
    assert not tier.memory.owes(key_scope(OTHER))
    assert tier.owing == [True, True, False]


@pytest.mark.parametrize("name_somewhere_else", [os.link, os.rename])
def test_a_file_that_has_another_name_is_not_removed(
    tier: Tier, name_somewhere_else: Callable[[Path, Path], None]
) -> None:
    elsewhere = tier.path.parent / "kept"
    tier.store()
    fd = tier.open()
    name_somewhere_else(tier.path / os.listdir(tier.path)[0], elsewhere)
    tier.remove()
    assert os.fstat(fd).st_nlink == 1, "a reader that has it open takes it for valid"
    assert tier.memory.owes(key_scope(KEY))
    elsewhere.unlink()
    assert not tier.memory.owes(key_scope(KEY))
    os.close(fd)


def test_a_file_that_never_was_an_entry_is_counted_and_ends_no_local_hits(tier: Tier) -> None:
    room = tier.memory.reserve(KEY, SIZE_BYTES)
    tier.memory.write(room, (bytes(SIZE_BYTES),))
    with append_only(tier.path):
        tier.memory.discard(room)
        assert tier.taken_bytes == SIZE_BYTES
        assert tier.owing == []
        assert not tier.memory.owes(key_scope(KEY))
    tier.memory.step(START_NS)
    tier.memory.step(START_NS)
    tier.finish()
    assert tier.taken_bytes == 0


def test_what_cannot_be_written_gives_its_pages_back_though_its_name_stays(tier: Tier) -> None:
    def chunks() -> Iterator[bytes]:
        with append_only(tier.path):
            yield bytes(SIZE_BYTES)
            raise ValueError("the source ends")

    room = tier.memory.reserve(KEY, SIZE_BYTES)
    with pytest.raises(ValueError, match="the source ends"):
        tier.memory.write(room, chunks())
    tier.memory.discard(room)
    assert [(tier.path / name).stat().st_blocks for name in os.listdir(tier.path)] in ([], [0])
    assert tier.taken_bytes == 0


def test_a_start_over_files_that_cannot_be_removed_says_what_to_do(directory: Path) -> None:
    directory.mkdir()
    (directory / "1-1.safetensors").write_bytes(b"of an earlier life")
    with append_only(directory), pytest.raises(ConfigError, match=r"earlier daemon.*chattr -a"):
        Tier(directory)


def test_a_start_where_files_cannot_be_removed_says_what_to_do(directory: Path) -> None:
    directory.mkdir()
    with append_only(directory), pytest.raises(ConfigError, match="no file can be made"):
        Tier(directory)
    for name in os.listdir(directory):
        (directory / name).unlink()


# ---- readers that the kernel reports, and readers that it does not


def test_a_reader_keeps_its_bytes_and_they_are_given_back_when_it_ends(tier: Tier) -> None:
    tier.store()
    held = tier.open(os.O_PATH)
    with subprocess.Popen(
        [sys.executable, "-c", _MAPS, *os.listdir(tier.path)],
        cwd=tier.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "mapped\n"
        tier.remove()
        tier.finish()
        tier.memory.step(START_NS)
        assert tier.memory.held_bytes == SIZE_BYTES
        seen, _ = reader.communicate()
    assert seen == f"{SIZE_BYTES} of 120\n"
    tier.memory.step(START_NS)
    tier.finish()
    assert tier.memory.held_bytes == 0
    assert _pages(held) == 0
    os.close(held)


_MAPS = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
pages = mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ)
os.close(fd)
print("mapped", flush=True)
sys.stdin.read()
found = pages[:]
print(found.count(found[0]), "of", found[0], flush=True)
"""


def test_a_descriptor_that_the_kernel_does_not_count_holds_no_pages(tier: Tier) -> None:
    tier.store()
    fd = tier.open(os.O_PATH)
    assert _pages(fd) > 0
    tier.remove()
    assert tier.memory.held_bytes == 0
    tier.finish()
    assert _pages(fd) == 0
    os.close(fd)


def test_many_such_descriptors_hold_nothing_beside_the_limit(tier: Tier) -> None:
    held = []
    for _ in range(20):
        tier.store()
        held.append(tier.open(os.O_PATH))
    tier.remove()
    tier.finish()
    assert sum(_pages(fd) for fd in held) == 0
    for fd in held:
        os.close(fd)


def test_a_removed_file_is_not_opened_again_by_others(tier: Tier) -> None:
    """After the entry's end an O_PATH descriptor cannot be reopened: erased bytes stay erased."""
    tier.store()
    fd = tier.open(os.O_PATH)
    assert _try_as_nobody(fd) == "opened"
    tier.remove()
    assert _try_as_nobody(fd) == "PermissionError"
    os.close(fd)


_AS_NOBODY = """
import os, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
"""
_REOPENS_ONCE = """
try:
    os.open(f"/proc/self/fd/{sys.argv[1]}", os.O_RDONLY)
except OSError as exc:
    print(type(exc).__name__)
else:
    print("opened")
"""


def _try_as_nobody(fd: int, script: str = _REOPENS_ONCE) -> str:
    """Run `script` as another user, and return its output.

    The process changes its user after its start: that user may not be able to read the interpreter.
    """
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    imports = "from cachesvc.tiers import leases\n"
    run = subprocess.run(
        [sys.executable, "-c", imports + _AS_NOBODY + script, str(fd)],
        pass_fds=[fd],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


# ---- readers in the daemon itself


@pytest.mark.parametrize("what", ["blob", "view"])
def test_an_answer_that_is_being_sent_keeps_its_bytes_and_they_count(tier: Tier, what: str) -> None:
    tier.store()
    entry = tier.memory.lookup(KEY, START_NS)
    assert entry is not None
    kept: SharedFile | memoryview = entry.blob if what == "blob" else entry.view()
    del entry
    tier.remove()
    tier.finish()
    assert tier.memory.held_bytes == SIZE_BYTES, "tmpfs still holds its pages"
    tier.memory.step(START_NS)
    tier.finish()
    assert tier.memory.held_bytes == SIZE_BYTES
    view = kept if isinstance(kept, memoryview) else kept.view()
    assert bytes(view) == b"x" * SIZE_BYTES
    del kept, view
    tier.memory.step(START_NS)
    tier.finish()
    assert tier.memory.held_bytes == 0


@pytest.mark.parametrize("is_seen", [True, False], ids=["held", "leaving"])
def test_an_erasure_marks_what_an_answer_still_has(tier: Tier, is_seen: bool) -> None:
    tier.store()
    entry = tier.memory.lookup(KEY, START_NS)
    assert entry is not None
    blob = entry.blob
    tier.remove()
    if is_seen:
        tier.finish()
    tier.memory.erase(key_scope(OTHER))()
    assert not blob.is_erased
    punch = tier.memory.erase(key_scope(KEY))
    assert blob.is_erased, "marked before it is zeroed, so that no answer sends zeros"
    assert bytes(blob.view()) == b"x" * SIZE_BYTES
    punch()
    assert bytes(blob.view()) == bytes(SIZE_BYTES)


def test_an_erasure_marks_what_an_answer_has_on_the_heap(tier: Tier) -> None:
    blob = HeapBytes(b"x")
    tier.memory.keep_in_reach(blob, meta_of(KEY, b"x"))
    mine = tier.memory.on_heap(b"x", meta_of(OTHER, b"x"))
    tier.memory.erase(key_scope(KEY))()
    assert (blob.is_erased, mine.is_erased) == (True, False)


def test_a_file_takes_one_descriptor(tier: Tier) -> None:
    before = len(os.listdir("/proc/self/fd"))
    tier.store()
    tier.store(OTHER)
    assert len(os.listdir("/proc/self/fd")) == before + 2


# ---- leases


@pytest.fixture
def unlinked() -> Iterator[int]:
    fd, name = tempfile.mkstemp(dir="/dev/shm", prefix="cachesvc-test-")
    Path(name).unlink()
    yield fd
    os.close(fd)


def test_a_lease_tells_whether_somebody_else_has_the_file(unlinked: int) -> None:
    assert not leases.is_open_elsewhere(unlinked)
    another = os.open(f"/proc/self/fd/{unlinked}", os.O_RDONLY)
    assert leases.is_open_elsewhere(unlinked)
    os.close(another)
    assert not leases.is_open_elsewhere(unlinked)


def test_no_lease_is_left_whatever_the_answer_is(unlinked: int) -> None:
    for is_open in (False, True):
        keep = [os.open(f"/proc/self/fd/{unlinked}", os.O_RDONLY)] if is_open else []
        assert leases.is_open_elsewhere(unlinked) is is_open
        # If a lease were left, this open would fail instead of waiting.
        flags = os.O_RDONLY | os.O_NONBLOCK
        os.close(os.open(f"/proc/self/fd/{unlinked}", flags))
        for fd in keep:
            os.close(fd)


_TAKES_A_LEASE = """
print(leases.is_open_elsewhere(int(sys.argv[1])), leases.why_not(int(sys.argv[1])))
"""


def test_a_lease_that_is_refused_for_another_reason_means_that_there_are_readers(
    unlinked: int,
) -> None:
    """The kernel refuses a lease to a user who does not own the file (EACCES)."""
    assert _try_as_nobody(unlinked, _TAKES_A_LEASE) == "True Permission denied"


_TAKES_LEASES = """
import os, sys
from cachesvc.tiers import leases
fd = int(sys.argv[1])
print("begins", flush=True)
for _ in range(int(sys.argv[2])):
    leases.is_open_elsewhere(fd)
print("lives", flush=True)
"""
_REOPENS = """
import os, sys
while True:
    os.close(os.open(f"/proc/self/fd/{sys.argv[1]}", os.O_RDONLY))
"""


def test_who_opens_a_file_during_its_lease_does_not_end_the_daemon(unlinked: int) -> None:
    """Promise 9. The kernel signals the lease's owner at each such open, some hundred times
    here.
    """

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", script, str(unlinked), *map(str, arguments)],
            pass_fds=[unlinked],
            stdout=subprocess.PIPE,
            text=True,
        )

    reopeners = [start(_REOPENS) for _ in range(2)]
    with start(_TAKES_LEASES, 100_000) as taker:
        said, _ = taker.communicate()
    for reopener in reopeners:
        with reopener:
            assert reopener.poll() is None
            reopener.kill()
    assert (taker.returncode, said) == (0, "begins\nlives\n")


_WITHOUT_LEASES = """
import os, sys
from pathlib import Path
from cachesvc.tiers.departures import HELD_UNSEEN_NS
from tests.tiers import test_departures as tests
tier = tests.Tier(Path(sys.argv[1]))
tier.store()
fd = tier.open()
tier.remove()
assert os.fstat(fd).st_nlink == 0
assert tier.memory.held_bytes == tests.SIZE_BYTES
tier.memory.step(tests.START_NS)
tier.memory.step(tests.START_NS + HELD_UNSEEN_NS - 1)
assert tier.memory.held_bytes == tests.SIZE_BYTES
tier.memory.step(tests.START_NS + HELD_UNSEEN_NS)
tier.finish()
assert tier.memory.held_bytes == 0
assert os.pread(fd, 2, 0) == b"xx", "nobody could say that it had no reader"
os.close(fd)
room = tier.memory.reserve(tests.KEY, tests.SIZE_BYTES)
tier.memory.write(room, (bytes(tests.SIZE_BYTES),))
tier.memory.discard(room)
tier.finish()
assert tier.taken_bytes == 0, "nobody was told its name"
tier.memory.close()
print("done")
"""


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOLCK, errno.EPERM, errno.EACCES])
def test_without_leases_a_removed_file_counts_for_a_minute_and_is_gone(
    directory: Path, number: int
) -> None:
    refusing = [sys.executable, "-m", "tests.support.no_leases", str(number)]
    run = subprocess.run(
        [*refusing, sys.executable, "-c", _WITHOUT_LEASES, directory],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.endswith("done\n"), run.stderr
    assert run.stdout.count("l1_readers_cannot_be_seen") == 1
