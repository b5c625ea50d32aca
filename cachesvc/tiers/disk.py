"""L2: files and their rows as one tier, with its threads and its clean-up.

The engine decides when something is stored or removed; this module keeps the order
that makes it durable: file first, then row; row first, then unlink. How full the disk is stands
in `disk_room.py`, files without a row in `disk_litter.py`, a wrong clock in `later_times.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from cachesvc.core.clock import NS_PER_S, AgeLimit, Now, ProvenTime
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.errors import CorruptEntry, NotDurable
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.pools import started_pool
from cachesvc.core.scopes import Change, Scope
from cachesvc.core.tensors import Buffer
from cachesvc.core.watermarks import Watermarks
from cachesvc.tiers.anchors import Anchor, NameLost, lost_of
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.catalog_facts import Total
from cachesvc.tiers.disk_files import DiskFiles, Location, stored_bytes
from cachesvc.tiers.disk_litter import DiskLitter
from cachesvc.tiers.disk_room import DiskRoom
from cachesvc.tiers.later_times import LaterTimes
from cachesvc.tiers.unrecorded import UnrecordedChanges

log = structlog.get_logger()
# Rows that one step of the sweeper deletes, so that no commit becomes long.
EXPIRE_BATCH = 200
# Changes older than this are forgotten; a Put whose source is older is always refused.
CHANGES_KEPT_NS = 30 * 24 * 3600 * NS_PER_S
# The bytes or inodes of a filesystem or a quota are used up.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
T = TypeVar("T")

# Called for each entry that is evicted or has expired.
OnLeaving = Callable[[Row, Leaving], None]


@dataclass(frozen=True, slots=True)
class Written:
    """A durable file that has no row yet: litter, until `commit` queues its row."""

    meta: EntryMeta
    reserved_bytes: int

    @property
    def location(self) -> Location:
        return Location(self.meta.key, self.meta.generation)


class DiskTier:
    """L2 of one daemon. All methods belong to the event loop.

    Reads and writes have pools of their own: a disk that hangs delays neither
    L1 hits nor name lookups.
    """

    def __init__(
        self,
        files: DiskFiles,
        catalog: Catalog,
        watermarks: Watermarks,
        *,
        on_leaving: OnLeaving,
        on_damage: Callable[[], None] = lambda: None,
        on_no_room: Callable[[], None] = lambda: None,
        keep_expired_ns: int = 0,
        anchors: Sequence[Anchor] = (),
        read_threads: int = 4,
        write_threads: int = 4,
    ) -> None:
        self._files = files
        self._catalog = catalog
        self.room = DiskRoom(watermarks, lambda: catalog.used_bytes, files.free_bytes())
        self._on_leaving = on_leaving
        self._on_damage = on_damage
        self._on_no_room = on_no_room
        self._anchors = anchors
        self._keep_expired_ns = keep_expired_ns
        self._readers = started_pool(read_threads, "l2-read")
        self._writers = started_pool(write_threads, "l2-write")
        self.litter = DiskLitter(files, catalog, self._readers, self._unlink)
        self._evicting = asyncio.Lock()
        self._unrecorded = UnrecordedChanges()
        self.later_times = LaterTimes(catalog, self._readers, self._unrecorded)
        # The first release recorded no last write; its last generation tells when it last stored.
        self._proven_time = ProvenTime(catalog.last_write_ns or catalog.last_generation)
        stored_last = Now(catalog.last_generation, catalog.last_generation)
        written_last = Now(catalog.last_write_ns, catalog.last_write_steady_ns)
        self._age_limit = AgeLimit(written_last if catalog.last_write_ns else stored_last)
        # Files, with their owners, whose commit failed and whose unlink failed after it.
        self._uncommitted: dict[Location, str] = {}

    # ---- state

    @property
    def totals(self) -> dict[str, Total]:
        return self._catalog.totals

    @property
    def last_write_ns(self) -> int:
        """Wall time of the catalog's last write in the life before, 0 if it is not known."""
        return self._catalog.last_write_ns

    @property
    def last_generation(self) -> int:
        return self._catalog.last_generation

    @property
    def queue_depth(self) -> int:
        return self._catalog.queue_depth

    # ---- reading

    async def lookup(self, key: EntryKey) -> Row | None:
        """Return the row of `key`, or None. Raises NotDurable if the catalog cannot be read."""
        try:
            return await self._read(self._catalog.lookup, key)
        except CorruptEntry as exc:
            log.warning("row_not_trusted", namespace=key.namespace, error=exc.message)
            self._on_damage()
            await self._distrust(key)
            return None

    async def _distrust(self, key: EntryKey) -> None:
        """Delete a row that may not be served, and the files of `key` that have no row."""
        with contextlib.suppress(
            NotDurable
        ):  # until the delete succeeds, each lookup refuses the row
            await self._unlink(await self._catalog.distrust(key))
            await self.litter.sweep_key(key)

    async def read_into(self, row: Row, write: Callable[[Iterator[memoryview]], None]) -> None:
        """Stream the file of `row` into `write`, in a reader's thread, checking it on the way.

        Raises FileNotFoundError, CorruptEntry (nothing of it may be served), OSError.
        """
        meta = row.meta
        location = Location(meta.key, meta.generation)
        chunks = self._files.read_chunks(location, meta.size_bytes, meta.checksum)
        await self._read(write, chunks)

    async def last_change_ns(self, scopes: tuple[Scope, ...]) -> int:
        """Return the latest change recorded for any of `scopes`, wall time, 0 if none."""
        unrecorded_ns = self._unrecorded.last_ns(scopes)
        try:
            await self._read(self._catalog.check_changes)
        except CorruptEntry:
            self._on_damage()
            await self._catalog.rebuild_changes()
        try:
            recorded = await self._read(self._catalog.last_change_ns, scopes)
        except CorruptEntry:
            self._on_damage()
            await self._catalog.assume_changed(scopes)
            recorded = await self._read(self._catalog.last_change_ns, scopes)
        return max(unrecorded_ns, recorded)

    # ---- storing

    async def write(self, meta: EntryMeta, *parts: Buffer) -> Written | None:
        """Store `parts` durably as one file, or return None if L2 does not admit it.

        Raises OSError: then no file is left.
        """
        size = stored_bytes(meta.size_bytes)
        if not await self._reserve(size):
            return None
        written = Written(meta, size)
        self.litter.awaiting_row.add(written.location)
        try:
            await self._write_or_remove(written.location, size, parts)
        except BaseException:  # also if cancelled: the file is litter
            self._settle(written)
            raise
        return written

    def _settle(self, written: Written) -> None:
        """Give back the room of a file that has its row now, or gets none."""
        self.room.release(written.reserved_bytes)
        self.litter.awaiting_row.discard(written.location)

    async def _write_or_remove(
        self, location: Location, size: int, parts: tuple[Buffer, ...]
    ) -> None:
        try:
            await self._write_file(location, size, parts)
        except OSError:
            # After a crash, with a clock that is behind, a file of this name may exist already.
            await self._unlink([location])
            raise

    async def _write_file(self, location: Location, size: int, parts: tuple[Buffer, ...]) -> None:
        """Write the file; if the filesystem is full, evict and try once more."""
        try:
            await self._write(self._files.write, location, *parts)
        except OSError as exc:
            if exc.errno not in NO_ROOM:
                raise
            namespace = location.key.namespace
            log.warning("l2_gives_way", namespace=namespace, error=exc.strerror, size_bytes=size)
            self._on_no_room()
            await self._evict_at_least(size)
            await self._write(self._files.write, location, *parts)

    async def _evict_at_least(self, size: int) -> None:
        """Free `size` bytes, and the inodes with them, whatever the watermarks say."""
        with contextlib.suppress(NotDurable):
            async with self._evicting:
                while size > 0 and (victims := await self._victims(size)):
                    size -= await self._forget(victims, Leaving.DISK_SPACE)

    def commit(self, written: Written, accesses: int, steady_ns: int) -> asyncio.Task[None]:
        """Queue the row; its order among all catalog writes is fixed when this returns.

        The task ends when the row is durable, or fails with NotDurable and leaves no file.
        """
        row = Row(written.meta, accesses, steady_ns)
        queued = self._catalog.upsert(row)
        return asyncio.create_task(self._finish_commit(written, queued), name="l2-commit")

    async def _finish_commit(
        self, written: Written, queued: asyncio.Future[Location | None]
    ) -> None:
        try:
            replaced = await queued
        except Exception:  # also a defect: leave no file without a row
            await self._unlink_uncommitted(written)
            raise
        finally:
            self._settle(written)
        if replaced is not None:
            # The replaced file's size is not known any more; assume the new file's.
            await self._unlink_counted([replaced], written.reserved_bytes)

    async def _unlink_uncommitted(self, written: Written) -> None:
        """Remove durably the file of a row whose commit failed.

        SQLite's log may hold the row nevertheless: a crash brings the row back if no later
        commit takes its place.
        """
        try:
            await self._unlink_durably([written.location])
        except NotDurable:
            self._uncommitted[written.location] = written.meta.owner

    async def abandon(self, written: Written) -> None:
        """Remove a file that lost to a newer change."""
        self._settle(written)
        await self._unlink_counted([written.location], written.reserved_bytes)

    async def _reserve(self, size: int) -> bool:
        """Reserve `size` bytes of the disk, evicting on demand; return whether that succeeded."""
        await self._look_at_free_bytes()
        if self.room.reserve(size):
            return True
        if not self.room.eviction_can_admit(size):
            return False
        with contextlib.suppress(NotDurable):
            await self.evict(size)
        await self._look_at_free_bytes()
        return self.room.reserve(size)

    async def would_admit(self, size_bytes: int) -> bool:
        """Return whether L2 would take an entry of that size, evicting what it may evict."""
        await self._look_at_free_bytes()
        return self.room.would_admit(stored_bytes(size_bytes))

    async def _look_at_free_bytes(self) -> None:
        self.room.free_bytes = await self._write(self._files.free_bytes)

    # ---- removing

    async def remove(self, row: Row) -> None:
        """Remove one generation durably: when this returns, no restart brings it back.

        Raises NotDurable.
        """
        location = Location(row.meta.key, row.meta.generation)
        try:
            await self._catalog.delete([location])
        except NotDurable:
            await self._unlink_durably([location])
        else:
            await self._unlink_counted([location], stored_bytes(row.meta.size_bytes))

    async def quarantine(self, row: Row) -> None:
        """Delete a damaged entry's row and set its file aside, as far as the disk allows.

        Raises nothing: the caller goes on to fill the entry again.
        """
        location = Location(row.meta.key, row.meta.generation)
        with contextlib.suppress(NotDurable):  # the next read checks the file again
            await self._catalog.delete([location])
        try:
            await self._write(self._files.quarantine, location)
        except OSError as exc:  # a read-only disk; without its row the file is litter
            namespace = row.meta.key.namespace
            log.warning("quarantine_failed", namespace=namespace, error=exc.strerror)

    def change_of(self, scope: Scope, changed_ns: int) -> Change:
        """Return the change of an invalidation that begins now; it covers no row queued later."""
        return self._catalog.change_of(scope, changed_ns)

    def invalidate(self, change: Change) -> asyncio.Task[list[Location]]:
        """Queue the DELETE of what `change` covers; its order is fixed when this returns.

        The task ends when the DELETE is durable and gives the files, which
        `unlink` may remove after the answer. Otherwise it fails with NotDurable.
        """
        queued = self._catalog.invalidate(change)
        return asyncio.create_task(self._finish_invalidation(change, queued), name="l2-invalidate")

    async def _finish_invalidation(
        self, change: Change, queued: asyncio.Future[list[Location]]
    ) -> list[Location]:
        try:
            return await queued
        except NotDurable as exc:
            if isinstance(exc.__cause__, NameLost):
                # The next daemon may find other files than those that we would unlink.
                raise
            # A full disk refuses even a DELETE, but not an unlink: a row without
            # its file is a miss, and stays one.
            locations = await self._read(self._catalog.locations, change)
            uncommitted = [at for at, o in self._uncommitted.items() if change.covers(*at, o)]
            await self._unlink_durably([*locations, *uncommitted])
            for location in uncommitted:
                self._uncommitted.pop(location, None)
            self._unrecorded.remember(change)
            return locations

    async def unlink(self, locations: list[Location]) -> None:
        """Unlink files whose rows are gone."""
        await self._unlink(locations)

    # ---- clean-up, one step at a time

    async def step(self, steady_ns: int, wall_ns: int) -> None:
        """Evict down to the watermarks, drop expired entries, retry what a full disk refused."""
        await self._trim_set_aside(wall_ns)
        with contextlib.suppress(NotDurable):
            await self.evict(0)
            now = Now(wall_ns, steady_ns)
            useless_ns = self._age_limit.expired_before_ns(now, self._keep_expired_ns)
            while await self._expire(useless_ns):
                pass
            for change in self._unrecorded:
                await self._catalog.record_change(change)
                self._unrecorded.forget(change)
            while not self._catalog.all_have_sums:
                await self._catalog.add_sums()
            await self._catalog.forget_changes(self._proven_time.at(now) - CHANGES_KEPT_NS)

    async def _trim_set_aside(self, wall_ns: int) -> None:
        """Remove what was set aside long ago, and count what stays as L2's bytes."""

        def trim() -> int:
            self._catalog.trim_set_aside(wall_ns)
            return self._files.quarantined.trim(wall_ns)

        with contextlib.suppress(OSError):  # a read-only disk: the files stay counted
            self.room.quarantined_bytes = await self._write(trim)

    async def erase_set_aside(self, scope: Scope) -> None:
        """Remove what was set aside of `scope`, damaged files and a catalog. Raises OSError."""

        def erase() -> None:
            self._files.quarantined.erase(scope)
            self._catalog.erase_set_aside()

        await self._write(erase)

    async def _expire(self, useless_ns: int) -> list[Row]:
        """Drop the next expired entries, if any. A write that needs room waits meanwhile."""
        async with self._evicting:
            expired = await self._catalog.expire(useless_ns, EXPIRE_BATCH)
            await self._forget(expired, Leaving.EXPIRED)
        return expired

    async def evict(self, wanted_bytes: int) -> None:
        """Free what the watermarks ask for, and room for `wanted_bytes` more."""
        async with self._evicting:
            await self._look_at_free_bytes()
            to_free = self.room.bytes_to_evict(wanted_bytes)
            while to_free > 0:
                victims = await self._victims(to_free)
                if not victims:
                    break
                to_free -= await self._forget(victims, Leaving.DISK_SPACE)

    async def _victims(self, to_free: int) -> list[Row]:
        """Delete rows from the catalog, the least recently used first.

        The catalog lowers its totals when the delete commits, on the writer's thread. The files
        are still on disk then, so count their bytes as leaving; otherwise `_reserve` would hand
        out the same space twice. In the turn of the loop in which this returns, `_forget` counts
        the rows' actual bytes.
        """
        with self.room.leaving(to_free):
            return await self._catalog.evict(to_free)

    async def _forget(self, rows: list[Row], cause: Leaving) -> int:
        """Unlink the files of rows that are gone, and return their bytes."""
        size_bytes = sum(stored_bytes(row.meta.size_bytes) for row in rows)
        locations = [Location(row.meta.key, row.meta.generation) for row in rows]
        await self._unlink_counted(locations, size_bytes)
        for row in rows:
            self._on_leaving(row, cause)
        return size_bytes

    async def confirm(self, row: Row) -> None:
        """Renew a generation in the catalog. If the disk is full, a later Get asks again."""
        with contextlib.suppress(NotDurable):
            await self._catalog.confirm(row)

    async def hottest(self, limit: int) -> list[Row]:
        """Return the entries that were used last. Raises NotDurable."""
        return await self._read(self._catalog.hottest, limit)

    async def record_accesses(self, used: list[Row]) -> None:
        """Remember uses across restarts. A full disk loses them."""
        if used:
            with contextlib.suppress(NotDurable):
                await self._catalog.record_accesses(used)

    async def lost_names(self) -> list[Path]:
        """Return the paths that no longer lead to what this daemon opened by them."""
        return await self._read(lambda: [*self._catalog.lost_names(), *lost_of(self._anchors)])

    async def record_clean_end(self) -> None:
        """Tell the next daemon that it knows of every change."""
        if not self._unrecorded:
            with contextlib.suppress(NotDurable):
                await self._catalog.record_clean_end()

    def close(self) -> None:
        """Finish what is queued. Blocks; nothing may be called afterwards."""
        self._readers.shutdown()
        self._writers.shutdown()
        self._catalog.close()
        self._files.close()

    # ---- threads

    async def _read(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, call, *args)

    async def _write(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writers, call, *args)

    async def _unlink(self, locations: list[Location]) -> None:
        def unlink() -> None:
            for location in locations:
                # What cannot be unlinked is litter, and the next start sweeps it.
                with contextlib.suppress(OSError):
                    self._files.remove(location)

        if locations:
            await self._write(unlink)

    async def _unlink_counted(self, locations: list[Location], size_bytes: int) -> None:
        """Unlink files without rows; until then their bytes count as occupied."""
        with self.room.leaving(size_bytes):
            await self._unlink(locations)

    async def _unlink_durably(self, locations: list[Location]) -> None:
        def unlink() -> None:
            for location in locations:
                self._files.remove(location, durable=True)

        try:
            await self._write(unlink)
        except OSError as exc:
            raise NotDurable("neither the catalog nor the L2 root can be written") from exc
