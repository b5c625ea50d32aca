"""Does L2 stay within its limit, and is an invalidated entry gone for good?

Promises 1, 5 and 9.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.checksum import checksum
from cachesvc.core.entry import Row
from cachesvc.core.errors import CorruptEntry, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Change, Scope, ScopeKind, key_scope
from cachesvc.core.tensors import Buffer
from cachesvc.core.watermarks import Watermarks
from cachesvc.tiers.catalog import EVICT_BATCH, Catalog
from cachesvc.tiers.disk import DiskTier, Written
from cachesvc.tiers.disk_files import DiskFiles, Location
from cachesvc.tiers.write_queue import Write
from tests.simulation.parts import FillableFiles
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of
from tests.support.engine.gates import Stop
from tests.support.engine.mounts import small_filesystem
from tests.support.entry_files import entry_files

BLOCK = 4096
ROOM = Watermarks(low_bytes=8 * BLOCK, high_bytes=9 * BLOCK, capacity_bytes=10 * BLOCK)


class Disk:
    """A tier over directories of its own; it records which entries left, and why."""

    def __init__(
        self,
        root: Path,
        state_dir: Path,
        watermarks: Watermarks,
        *,
        files: DiskFiles | None = None,
        catalog: Catalog | None = None,
    ) -> None:
        self.root, self.state_dir = root, state_dir
        state_dir.mkdir(exist_ok=True)
        self.removed: list[tuple[str, Leaving]] = []
        self.catalog = catalog or Catalog(state_dir, on_reset=lambda: None)
        self.tier = DiskTier(
            files or DiskFiles(root, ("garment", "text")),
            self.catalog,
            watermarks,
            on_leaving=lambda row, cause: self.removed.append((row.meta.key.id, cause)),
        )
        self.close = self.tier.close

    async def store(self, name: str, generation: int, size: int = BLOCK, used_at: int = 0) -> bool:
        """Write and commit; return False if the entry was not admitted."""
        meta = meta_of(EntryKey("garment", name), bytes(size), generation=generation)
        written = await self.tier.write(meta, bytes(size))
        if written is None:
            return False
        await self.tier.commit(written, 0, START_NS + (used_at or generation))
        return True

    async def invalidate(self, scope: Scope, changed_ns: int) -> list[Location]:
        return await self.tier.invalidate(self.tier.change_of(scope, changed_ns))

    async def row(self, name: str) -> Row | None:
        return await self.tier.lookup(EntryKey("garment", name))

    def names(self) -> list[str]:
        ours = (path for path in entry_files(self.root) if path.suffix == ".safetensors")
        return sorted(path.parent.name for path in ours)


NewDisk = Callable[..., Disk]


@pytest.fixture
async def new_disk(tmp_path: Path) -> AsyncIterator[NewDisk]:
    opened: list[Disk] = []

    def make(watermarks: Watermarks = ROOM, files: DiskFiles | None = None) -> Disk:
        opened.append(Disk(tmp_path / "l2", tmp_path / "state", watermarks, files=files))
        return opened[-1]

    yield make
    for disk in opened[-1:]:
        await asyncio.to_thread(disk.close)


# ---- room


async def test_concurrent_writers_never_overshoot_the_capacity(new_disk: NewDisk) -> None:
    # The low mark is so low that nothing is evicted for the writers: a late one is refused.
    disk = new_disk(Watermarks(1, 10 * BLOCK, 10 * BLOCK))
    peaks = []

    async def store(number: int) -> bool:
        meta = meta_of(EntryKey("garment", f"g{number}"), bytes(BLOCK), generation=number)
        written = await disk.tier.write(meta, bytes(BLOCK))
        peaks.append(len(disk.names()))
        if written is None:
            return False
        await disk.tier.commit(written, 0, START_NS + number)
        return True

    admitted = await asyncio.gather(*(store(number) for number in range(1, 41)))
    assert admitted.count(True) == 10
    assert max(peaks) == 10
    assert disk.tier.room.used_bytes == 10 * BLOCK


async def test_concurrent_writers_that_evict_for_each_other_end_within_the_capacity(
    new_disk: NewDisk,
) -> None:
    disk = new_disk(Watermarks(10 * BLOCK, 10 * BLOCK, 10 * BLOCK))
    names = [f"g{number}" for number in range(1, 41)]
    admitted = await asyncio.gather(
        *(disk.store(name, number) for number, name in enumerate(names, 1))
    )
    assert any(admitted)
    assert disk.tier.room.used_bytes <= 10 * BLOCK
    assert disk.names() == sorted([name for name in names if await disk.row(name)])


async def test_a_write_that_fails_leaves_no_file_of_its_name_either(
    new_disk: NewDisk, tmp_path: Path
) -> None:
    """After a crash, a clock that is behind can hand out the same generation in the next life."""
    files = FillableFiles(tmp_path / "l2", ("garment", "text"))
    disk = new_disk(files=files)
    meta = meta_of(EntryKey("garment", "coat"), bytes(BLOCK), generation=7)
    files.write(Location(meta.key, meta.generation), bytes(BLOCK))
    files.is_full = True
    with pytest.raises(OSError, match="No space"):
        await disk.tier.write(meta, bytes(BLOCK))
    assert disk.names() == []
    assert disk.tier.room.occupied_bytes == 0


async def test_room_is_owned_before_the_first_byte_and_given_back_when_abandoned(
    new_disk: NewDisk,
) -> None:
    disk = new_disk(Watermarks(BLOCK, BLOCK, BLOCK))
    meta = meta_of(EntryKey("garment", "first"), bytes(BLOCK), generation=1)
    written = await disk.tier.write(meta, bytes(BLOCK))
    assert written is not None
    assert not await disk.store("second", 2)
    await disk.tier.abandon(written)
    assert disk.names() == []
    assert await disk.store("second", 2)


async def test_a_failed_write_gives_its_room_back(new_disk: NewDisk) -> None:
    disk = new_disk(Watermarks(BLOCK, BLOCK, BLOCK))
    (disk.root / "garment" / "shirt").touch()  # a file in place of the directory
    with pytest.raises(OSError, match="Not a directory"):
        await disk.store("shirt", 1)
    assert await disk.store("coat", 2)


async def test_an_entry_that_could_never_fit_evicts_nothing(new_disk: NewDisk) -> None:
    disk = new_disk(ROOM)
    assert await disk.store("small", 1)
    assert not await disk.store("large", 2, size=11 * BLOCK)
    assert disk.names() == ["small"]


async def test_eviction_goes_from_the_high_mark_to_the_low_one_in_whole_lru_entries(
    new_disk: NewDisk,
) -> None:
    disk = new_disk(Watermarks(5 * BLOCK, 9 * BLOCK, 10 * BLOCK))
    for number in range(1, 10):
        assert await disk.store(f"g{number}", number)
    await disk.tier.step(START_NS, START_NS)
    assert len(disk.names()) == 9  # used bytes are at the mark, not above it
    row = await disk.row("g1")
    assert row is not None
    await disk.tier.record_accesses([Row(row.meta, 1, START_NS + 1000)])
    assert await disk.store("g10", 10)
    await disk.tier.step(START_NS, START_NS)
    assert disk.names() == sorted(["g1", "g7", "g8", "g9", "g10"])
    assert disk.removed == [(f"g{number}", Leaving.DISK_SPACE) for number in range(2, 7)]
    assert disk.tier.room.used_bytes == 5 * BLOCK


class WatchedFiles(DiskFiles):
    """The real files; counts the bytes on disk after each write and before each unlink."""

    def __init__(self, root: Path, namespaces: tuple[str, ...]) -> None:
        super().__init__(root, namespaces)
        self._root = root
        self.seen_bytes: list[int] = []

    def write(self, location: Location, *parts: Buffer) -> None:
        super().write(location, *parts)
        self._look()

    def remove(self, location: Location, *, durable: bool = False) -> None:
        self._look()
        super().remove(location, durable=durable)

    def _look(self) -> None:
        self.seen_bytes.append(bytes_of_files(self._root))


def bytes_of_files(root: Path) -> int:
    """Return the bytes under `root`, while other threads change files there."""
    by_inode: dict[int, int] = {}  # a file that is renamed meanwhile counts once
    # Unlike Path.rglob, os.walk goes on after a directory has just been deleted.
    for folder, _, names in os.walk(root):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(os.path.join(folder, name))
                by_inode[status.st_ino] = status.st_blocks * 512
    return sum(by_inode.values())


async def test_the_disk_is_never_above_its_limit_while_entries_leave_for_new_ones(
    tmp_path: Path,
) -> None:
    """Promise 5. Evicted entries are on the disk, and counted, until they are unlinked."""
    files = WatchedFiles(tmp_path / "l2", ("garment", "text"))
    disk = Disk(tmp_path / "l2", tmp_path / "state", ROOM, files=files)
    for number in range(1, 61, 3):
        await asyncio.gather(*(disk.store(f"g{n}", n) for n in range(number, number + 3)))
        await disk.tier.step(START_NS, START_NS)
    assert len(disk.removed) >= 50
    assert len(files.seen_bytes) >= 110
    assert max(files.seen_bytes) <= ROOM.capacity_bytes
    await asyncio.to_thread(disk.close)


async def test_what_is_evicted_counts_from_the_commit_until_it_is_unlinked(
    new_disk: NewDisk,
) -> None:
    """Promise 5. The catalog's thread commits while the loop counts the disk's bytes."""
    disk = new_disk(Watermarks(10 * BLOCK, 100 * BLOCK, 100 * BLOCK))
    for number in range(1, 61):
        assert await disk.store(f"g{number}", number)
    evicting = asyncio.create_task(disk.tier.evict(50 * BLOCK))
    looks = 0
    while not evicting.done():
        await asyncio.sleep(0)
        present_bytes = bytes_of_files(disk.root)
        assert disk.tier.room.occupied_bytes >= present_bytes
        looks += 1
    assert looks > 1
    assert disk.tier.room.occupied_bytes == disk.tier.room.used_bytes == 0


class HeldFiles(DiskFiles):
    """The real files; each unlink waits until the test releases it."""

    def __init__(self, root: Path, namespaces: tuple[str, ...]) -> None:
        super().__init__(root, namespaces)
        self.is_held, self.goes_on = threading.Event(), threading.Event()
        self.was_looked_at = threading.Event()

    def remove(self, location: Location, *, durable: bool = False) -> None:
        self.is_held.set()
        self.goes_on.wait()
        super().remove(location, durable=durable)

    def free_bytes(self) -> int:
        if self.is_held.is_set():
            self.was_looked_at.set()
        return super().free_bytes()


async def _expire(disk: Disk) -> None:
    row = await disk.row("old")
    assert row is not None
    await disk.tier.step(row.meta.expires_ns(0), START_NS)


async def _replace(disk: Disk) -> None:
    assert await disk.store("old", 2)


async def _remove(disk: Disk) -> None:
    row = await disk.row("old")
    assert row is not None
    await disk.tier.remove(row)


async def _abandon(disk: Disk) -> None:
    meta = meta_of(EntryKey("garment", "older"), bytes(BLOCK), generation=2)
    written = await disk.tier.write(meta, bytes(BLOCK))
    assert written is not None
    await disk.tier.abandon(written)


@pytest.mark.parametrize(
    ("leave", "capacity_bytes"),
    [(_expire, BLOCK), (_remove, BLOCK), (_replace, 2 * BLOCK), (_abandon, 2 * BLOCK)],
    ids=["expired", "removed", "replaced", "abandoned"],
)
async def test_a_file_without_a_row_takes_its_room_until_it_is_unlinked(
    tmp_path: Path, leave: Callable[[Disk], Awaitable[None]], capacity_bytes: int
) -> None:
    # A: the row is deleted, the file not yet | B: would be admitted to the room of that file
    files = HeldFiles(tmp_path / "l2", ("garment", "text"))
    marks = Watermarks(1, capacity_bytes, capacity_bytes)  # so low that nothing is evicted for B
    disk = Disk(tmp_path / "l2", tmp_path / "state", marks, files=files)
    assert await disk.store("old", 1)
    leaving = asyncio.ensure_future(leave(disk))
    await asyncio.to_thread(files.is_held.wait)
    admitted = await disk.store("new", 3)
    files.goes_on.set()
    await leaving
    assert not admitted
    assert await disk.store("new", 4)
    await asyncio.to_thread(disk.close)


async def test_who_needs_room_waits_for_what_expired_to_be_unlinked(tmp_path: Path) -> None:
    files = HeldFiles(tmp_path / "l2", ("garment", "text"))
    marks = Watermarks(BLOCK, BLOCK, BLOCK)
    disk = Disk(tmp_path / "l2", tmp_path / "state", marks, files=files)
    assert await disk.store("old", 1)
    expiring = asyncio.ensure_future(_expire(disk))
    await asyncio.to_thread(files.is_held.wait)
    storing = asyncio.create_task(disk.store("new", 2))
    await asyncio.to_thread(files.was_looked_at.wait)
    files.goes_on.set()
    await expiring
    assert await storing
    assert disk.removed == [("old", Leaving.EXPIRED)]
    await asyncio.to_thread(disk.close)


class CountingCatalog(Catalog):
    """The real catalog; records how many rows each transaction deleted."""

    deleted: list[int]

    def _commit(self, batch: list[Write[Any]]) -> None:
        before = sum(total.entries for total in self.totals.values())
        super()._commit(batch)
        self.deleted.append(before - sum(total.entries for total in self.totals.values()))


async def test_an_eviction_deletes_a_bounded_number_of_rows_in_one_transaction(
    tmp_path: Path,
) -> None:
    """Promise 8: an invalidation that is queued behind an eviction waits for one such batch."""
    count = 2 * EVICT_BATCH + 50
    (tmp_path / "state").mkdir()
    catalog = CountingCatalog(tmp_path / "state", on_reset=lambda: None)
    catalog.deleted = []
    # The used bytes exceed the high mark by one block; the low mark asks to evict nearly all.
    marks = Watermarks(BLOCK, (count - 1) * BLOCK, count * BLOCK)
    disk = Disk(tmp_path / "l2", tmp_path / "state", marks, catalog=catalog)
    rows = [
        Row(meta_of(EntryKey("garment", f"g{number}"), b"x", generation=number), 0, START_NS)
        for number in range(1, count + 1)
    ]
    await asyncio.gather(*(catalog.upsert(row) for row in rows))
    catalog.deleted.clear()
    await disk.tier.evict(0)
    assert disk.tier.room.used_bytes == BLOCK
    assert sum(catalog.deleted) == count - 1
    assert max(catalog.deleted) == EVICT_BATCH
    await asyncio.to_thread(disk.close)


async def test_a_new_entry_makes_room_for_itself_when_all_is_taken(new_disk: NewDisk) -> None:
    disk = new_disk(Watermarks(3 * BLOCK, 3 * BLOCK, 3 * BLOCK))
    for number in range(1, 4):
        assert await disk.store(f"g{number}", number)
    assert await disk.store("g4", 4)
    assert disk.names() == ["g2", "g3", "g4"]


async def test_below_the_floor_nothing_is_admitted_and_l2_makes_itself_smaller(
    tmp_path: Path,
) -> None:
    with small_filesystem(tmp_path / "small", 1 << 20) as small:
        floor = Watermarks(50 * BLOCK, 60 * BLOCK, 64 * BLOCK, floor_bytes=64 * BLOCK)
        disk = Disk(small.path / "l2", tmp_path / "state", floor)
        for number in range(1, 5):
            assert await disk.store(f"g{number}", number)
        small.fill()
        assert not await disk.store("g5", 5)
        await disk.tier.step(START_NS, START_NS)
        assert disk.names() == []
        assert disk.tier.room.used_bytes == 0
        small.free()
        assert await disk.store("g6", 6)
        await asyncio.to_thread(disk.close)


async def test_a_replaced_generation_takes_its_file_along(new_disk: NewDisk) -> None:
    disk = new_disk(ROOM)
    await disk.store("shirt", 1)
    await disk.store("shirt", 2)
    assert [p.name for p in disk.root.rglob("*.safetensors")] == ["2.safetensors"]
    assert disk.tier.room.used_bytes == BLOCK


async def test_expired_entries_are_reclaimed_with_their_files(new_disk: NewDisk) -> None:
    disk = new_disk(ROOM)
    await disk.store("shirt", 1)
    row = await disk.row("shirt")
    assert row is not None
    await disk.tier.step(row.meta.expires_ns(0) - 1, START_NS)
    assert disk.names() == ["shirt"]
    await disk.tier.step(row.meta.expires_ns(0), START_NS)
    assert disk.names() == []
    assert disk.removed == [("shirt", Leaving.EXPIRED)]


# ---- reading


async def test_a_read_is_checked_in_the_buffer_that_is_handed_on(new_disk: NewDisk) -> None:
    disk = new_disk(ROOM)
    await disk.store("shirt", 1, size=1000)
    row = await disk.row("shirt")
    assert row is not None
    got: list[bytes] = []
    await disk.tier.read_into(row, lambda chunks: got.extend(bytes(c) for c in chunks))
    assert checksum(b"".join(got)) == row.meta.checksum
    (path,) = disk.root.rglob("*.safetensors")
    path.write_bytes(b"\1" + bytes(999))
    with pytest.raises(CorruptEntry):
        await disk.tier.read_into(row, lambda chunks: got.extend(bytes(c) for c in chunks))
    await disk.tier.quarantine(row)
    assert await disk.row("shirt") is None
    assert disk.tier.room.used_bytes == 0
    assert len(list((disk.root / ".quarantine").iterdir())) == 1


# ---- invalidations on a disk that cannot be written


async def test_an_invalidation_under_an_unwritable_catalog_unlinks_instead(
    tmp_path: Path,
) -> None:
    with small_filesystem(tmp_path / "small", 4 << 20) as small:
        disk = Disk(tmp_path / "l2", small.path, ROOM)
        scope = key_scope(EntryKey("garment", "shirt"))
        await disk.store("shirt", 1)
        await disk.store("coat", 2)
        small.fill()
        locations = await disk.invalidate(scope, START_NS)
        assert [location.key.id for location in locations] == ["shirt"]
        assert disk.names() == ["coat"]
        row = await disk.row("shirt")
        assert row is not None
        got: list[bytes] = []
        with pytest.raises(FileNotFoundError):
            await disk.tier.read_into(row, lambda chunks: got.extend(bytes(c) for c in chunks))
        assert await disk.tier.last_change_ns((scope,)) == START_NS

        small.free()
        await disk.tier.step(START_NS, START_NS)
        await asyncio.to_thread(disk.close)
        again = Disk(tmp_path / "l2", small.path, ROOM)
        assert await again.tier.last_change_ns((scope,)) == START_NS
        await asyncio.to_thread(again.close)


class HeldCatalog(Catalog):
    """The real catalog; after a change is recorded, the call that recorded it is held."""

    recorded: Stop

    def record_change(self, change: Change) -> asyncio.Future[None]:
        queued = super().record_change(change)

        async def wait() -> None:
            await queued
            await self.recorded.hold()

        return asyncio.create_task(wait())


async def test_a_change_that_comes_while_an_older_one_is_recorded_is_not_forgotten(
    tmp_path: Path,
) -> None:
    """Promise 1: otherwise a Put whose source is older than the later change would be accepted."""
    # upkeep: records t1 | invalidation: refused, its t2 is remembered | upkeep: goes on
    with small_filesystem(tmp_path / "small", 4 << 20) as small:
        catalog = HeldCatalog(small.path, on_reset=lambda: None)
        catalog.recorded = Stop()
        disk = Disk(tmp_path / "l2", small.path, ROOM, catalog=catalog)
        scope = key_scope(EntryKey("garment", "shirt"))
        small.fill()
        await disk.invalidate(scope, START_NS)
        small.free()
        upkeep = asyncio.create_task(disk.tier.step(START_NS, START_NS))
        await catalog.recorded.reached()
        small.fill()
        await disk.invalidate(scope, START_NS + 1)
        catalog.recorded.release()
        await upkeep
        assert await disk.tier.last_change_ns((scope,)) == START_NS + 1
        await asyncio.to_thread(disk.close)


async def test_where_neither_can_be_written_it_says_so(tmp_path: Path) -> None:
    with (
        small_filesystem(tmp_path / "small-state", 4 << 20) as state,
        small_filesystem(tmp_path / "small-l2", 4 << 20) as l2,
    ):
        disk = Disk(l2.path, state.path, ROOM)
        await disk.store("shirt", 1)
        state.fill()
        l2.set_read_only(True)
        with pytest.raises(NotDurable):
            await disk.invalidate(Scope(ScopeKind.EVERYTHING), START_NS)
        row = await disk.row("shirt")
        assert row is not None
        with pytest.raises(NotDurable):
            await disk.tier.remove(row)
        await asyncio.to_thread(disk.close)


async def test_a_commit_that_the_catalog_refuses_leaves_no_file_and_no_room_taken(
    tmp_path: Path,
) -> None:
    with small_filesystem(tmp_path / "small", 4 << 20) as small:
        disk = Disk(tmp_path / "l2", small.path, Watermarks(BLOCK, BLOCK, BLOCK))
        small.fill()
        with pytest.raises(NotDurable):
            await disk.store("shirt", 1)
        assert disk.names() == []
        small.free()
        assert await disk.store("coat", 2)
        await asyncio.to_thread(disk.close)


async def test_the_file_of_a_row_that_may_come_back_is_gone_before_an_invalidation_is_answered(
    tmp_path: Path,
) -> None:
    # A: its COMMIT fails with its frames in SQLite's log, its file cannot be unlinked
    # B: invalidates, finds no row
    # restart: the log may bring A's row back, to its file
    with (
        small_filesystem(tmp_path / "small-state", 4 << 20) as state,
        small_filesystem(tmp_path / "small-l2", 4 << 20) as l2,
    ):
        disk = Disk(l2.path, state.path, ROOM)
        written = await disk.tier.write(
            meta_of(EntryKey("garment", "shirt"), bytes(BLOCK), generation=1), bytes(BLOCK)
        )
        assert written is not None
        state.fill()
        l2.set_read_only(True)
        with pytest.raises(NotDurable):
            await disk.tier.commit(written, 0, START_NS)
        with pytest.raises(NotDurable):
            await disk.invalidate(Scope(ScopeKind.EVERYTHING), START_NS)
        l2.set_read_only(False)
        await disk.invalidate(key_scope(EntryKey("garment", "coat")), START_NS)
        assert disk.names() == ["shirt"]
        await disk.invalidate(Scope(ScopeKind.EVERYTHING), START_NS)
        assert disk.names() == []
        await asyncio.to_thread(disk.close)


async def test_the_file_of_a_refused_commit_stays_gone_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_filesystem(tmp_path / "small", 4 << 20) as small:
        disk = Disk(tmp_path / "l2", small.path, ROOM)
        await disk.store("shirt", 1)
        written = await disk.tier.write(
            meta_of(EntryKey("garment", "shirt"), bytes(BLOCK), generation=2), bytes(BLOCK)
        )
        assert written is not None
        synced: list[Path] = []
        fsync = os.fsync

        def watched(fd: int) -> None:
            synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
            fsync(fd)

        monkeypatch.setattr(os, "fsync", watched)
        small.fill()
        with pytest.raises(NotDurable):
            await disk.tier.commit(written, 0, START_NS)
        assert synced == [disk.root / "garment" / "shirt"]
        await asyncio.to_thread(disk.close)


# ---- litter


async def test_the_sweep_removes_files_without_a_row_and_nothing_else(new_disk: NewDisk) -> None:
    dead = new_disk(ROOM)
    await dead.store("kept", 10)
    meta = meta_of(EntryKey("garment", "litter"), bytes(BLOCK), generation=11)
    await dead.tier.write(meta, bytes(BLOCK))  # a crash comes before its row
    older = meta_of(EntryKey("garment", "kept"), bytes(BLOCK), generation=9)
    await dead.tier.write(older, bytes(BLOCK))
    await asyncio.to_thread(dead.close)
    disk = new_disk(ROOM)
    coming = meta_of(EntryKey("garment", "coming"), bytes(BLOCK), generation=100)
    await disk.tier.write(coming, bytes(BLOCK))
    foreign = disk.root / "garment" / "kept" / "garm_img.png"
    foreign.touch()
    report = await disk.tier.litter.sweep("garment", before_generation=50)
    assert report.removed_files == 2
    assert report.foreign_names == 1
    assert disk.names() == ["coming", "kept"]
    assert foreign.exists()


class HeldWalk(DiskFiles):
    """The real files; a listing is held before it begins."""

    listing: Stop

    def walk(self, namespace: str) -> Iterator[Location | None]:
        self.listing.hold_thread()
        yield from super().walk(namespace)


class HeldLookup(Catalog):
    """The real catalog; a sweep's lookup is held before it returns."""

    looked_up: Stop

    def generations(self, namespace: str, ids: list[str]) -> dict[str, int]:
        found = super().generations(namespace, ids)
        self.looked_up.hold_thread()
        return found


async def written_to(disk: Disk) -> Written:
    """Write a file whose row is not committed yet."""
    meta = meta_of(EntryKey("garment", "shirt"), bytes(BLOCK), generation=1)
    written = await disk.tier.write(meta, bytes(BLOCK))
    assert written is not None
    return written


async def test_the_sweep_leaves_a_file_whose_row_is_still_to_come(new_disk: NewDisk) -> None:
    # A Put's file is renamed | the catalog is lost, a sweep runs | the Put's row commits
    disk = new_disk(ROOM)
    written = await written_to(disk)
    report = await disk.tier.litter.sweep("garment", before_generation=50)
    await disk.tier.commit(written, 0, START_NS)
    assert disk.names() == ["shirt"]
    assert report.removed_files == 0


async def test_the_sweep_leaves_a_file_that_is_renamed_while_it_lists(tmp_path: Path) -> None:
    files = HeldWalk(tmp_path / "l2", ("garment", "text"))
    files.listing = Stop()
    disk = Disk(tmp_path / "l2", tmp_path / "state", ROOM, files=files)
    sweep = asyncio.create_task(disk.tier.litter.sweep("garment", before_generation=50))
    await files.listing.reached()
    written = await written_to(disk)
    files.listing.release()
    await sweep
    await disk.tier.commit(written, 0, START_NS)
    assert disk.names() == ["shirt"]
    await asyncio.to_thread(disk.close)


async def test_the_sweep_leaves_a_file_whose_row_commits_while_it_looks_for_rows(
    tmp_path: Path,
) -> None:
    (tmp_path / "state").mkdir()
    catalog = HeldLookup(tmp_path / "state", on_reset=lambda: None)
    catalog.looked_up = Stop()
    disk = Disk(tmp_path / "l2", tmp_path / "state", ROOM, catalog=catalog)
    written = await written_to(disk)
    sweep = asyncio.create_task(disk.tier.litter.sweep("garment", before_generation=50))
    await catalog.looked_up.reached()
    await disk.tier.commit(written, 0, START_NS)
    catalog.looked_up.release()
    await sweep
    assert disk.names() == ["shirt"]
    await asyncio.to_thread(disk.close)


async def test_the_file_of_an_abandoned_write_is_litter_again(
    new_disk: NewDisk,
) -> None:
    disk = new_disk(ROOM)
    written = await written_to(disk)
    await disk.tier.abandon(written)
    left = disk.root / "garment" / "shirt" / "1.safetensors"  # as an unlink that failed leaves it
    left.parent.mkdir()
    left.touch()
    report = await disk.tier.litter.sweep("garment", before_generation=50)
    assert report.removed_files == 1
    assert disk.names() == []


async def test_a_lost_catalog_makes_all_files_litter_and_l2_starts_empty(
    new_disk: NewDisk,
) -> None:
    disk = new_disk(ROOM)
    await disk.store("shirt", 1)
    await asyncio.to_thread(disk.close)
    for path in disk.state_dir.iterdir():
        path.unlink()
    again = new_disk(ROOM)
    assert await again.row("shirt") is None
    report = await again.tier.litter.sweep("garment", before_generation=50)
    assert report.removed_files == 1
    assert again.names() == []
