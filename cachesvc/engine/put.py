"""Stores an entry that a caller brings: durable before it answers, newer than any fill.

stream arrives (an invalidation meanwhile fences it) -> checked -> `persist`: origin written,
each object unless the Put is fenced by then -> file written and synced
one function: fence flights, unlink L1's file, tombstone, queue the row
await the row -> one function: lift, fence what flew meanwhile, publish to L1 -> answer
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from cachesvc.core.checksum import checksum
from cachesvc.core.clock import NS_PER_S, Now
from cachesvc.core.entry import EntryMeta
from cachesvc.core.errors import Aborted, InvalidRequest, Overloaded, SourceTooOld
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kind
from cachesvc.core.leaving import Leaving
from cachesvc.core.origin import OriginStamp
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, scopes_of
from cachesvc.core.tensors import Buffer
from cachesvc.core.tier import Tier
from cachesvc.engine.fill import Filler
from cachesvc.engine.flight import Served
from cachesvc.engine.ports import Codec
from cachesvc.engine.state import State, log
from cachesvc.tiers.disk import Written
from cachesvc.tiers.disk_files import Location
from cachesvc.tiers.rooms import Room

# Smaller messages are joined as they come, which takes 0.1 ms.
LEAST_PART_BYTES = 256 * 1024
_CHANGED = "as_of is older than the last change of this entry, or than what it has now"
# Recorded changes are forgotten after 30 days; an older source cannot be judged.
MAX_SOURCE_AGE_NS = 29 * 24 * 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class PutHeader:
    """What is being stored. `as_of_ns` (wall) None = now; `ttl_s` None = adaptive."""

    key: EntryKey
    kind: Kind
    owner: str
    as_of_ns: int | None = None
    ttl_s: float | None = None
    persist: bool = False


class Upload:
    """A Put whose bytes are still coming. Made by `Putter.receive`."""

    def __init__(self, header: PutHeader, arrival: Now, max_bytes: int) -> None:
        self.header = header
        self.arrival = arrival
        self.fenced = False
        self._max_bytes = max_bytes
        self._parts: list[bytes | bytearray] = []
        # The bytes of small messages, until they make a part: a list of messages would take
        # more memory.
        self._rest = bytearray()
        self.size_bytes = 0

    @property
    def as_of_ns(self) -> int:
        """When the source was read; a moment in the future counts as the arrival."""
        asked_ns = self.header.as_of_ns
        return self.arrival.wall_ns if asked_ns is None else min(asked_ns, self.arrival.wall_ns)

    def append(self, data: bytes) -> None:
        """Take the next bytes. Raises Overloaded, reason ENTRY_TOO_LARGE."""
        self.size_bytes += len(data)
        if self.size_bytes > self._max_bytes:
            raise Overloaded(
                f"an entry may have {self._max_bytes:,} bytes (limits.max_entry_bytes)",
                reason="ENTRY_TOO_LARGE",
            )
        self.check_fence()
        if len(data) < LEAST_PART_BYTES:
            self._rest += data
        if max(len(data), len(self._rest)) >= LEAST_PART_BYTES:
            self._end_part()
        if len(data) >= LEAST_PART_BYTES:
            self._parts.append(data)

    def take(self) -> tuple[Buffer, ...]:
        """Return the blob's parts and keep none. Joining them would block the loop."""
        self._end_part()
        parts, self._parts = tuple(self._parts), []
        return parts

    def _end_part(self) -> None:
        if self._rest:
            self._parts.append(self._rest)
            self._rest = bytearray()

    def check_fence(self) -> None:
        """Raise Aborted, reason PUT_FENCED, if the key was invalidated since the header came."""
        if self.fenced:
            raise Aborted(
                "the key was invalidated during this Put: read the source again",
                reason="PUT_FENCED",
            )


class PutTable:
    """The Puts under way, so that an invalidation can reach them.

    A Put stays in it while its caller streams it or its task stores it; the task goes on
    when the caller leaves.
    """

    def __init__(self) -> None:
        self._uploads: Counter[Upload] = Counter()

    def __len__(self) -> int:
        return len(self._uploads)

    def add(self, upload: Upload) -> None:
        self._uploads[upload] += 1

    def remove(self, upload: Upload) -> None:
        self._uploads[upload] -= 1
        if not self._uploads[upload]:
            del self._uploads[upload]

    def fence(self, scope: Scope) -> None:
        for upload in self._uploads:
            if scope.covers(upload.header.key, upload.header.owner):
                upload.fenced = True


class Putter:
    """Runs Puts; Puts of the same key run one after the other."""

    def __init__(self, state: State, filler: Filler, codec: Codec, puts: PutTable) -> None:
        self._state = state
        self._filler = filler
        self._codec = codec
        self._puts = puts
        self._locks: dict[EntryKey, _CountedLock] = {}

    @asynccontextmanager
    async def receive(self, header: PutHeader) -> AsyncIterator[Upload]:
        """Register the Put, then take its bytes; an invalidation from now on fences it."""
        if header.persist and not header.owner:
            raise InvalidRequest("persist needs owner_id", reason="OWNER_REQUIRED")
        if len(self._puts) >= self._state.limits.max_concurrent_puts:
            raise Overloaded("too many Puts are under way; retry later", reason="TOO_MANY_PUTS")
        upload = Upload(header, self._state.read_time(), self._state.limits.max_entry_bytes)
        self._puts.add(upload)
        try:
            yield upload
        finally:
            self._puts.remove(upload)

    async def check(self, upload: Upload) -> bool:
        """Judge what was received as `store` does, and store nothing.

        Returns whether L2 would have room. Raises InvalidRequest, Aborted, NotDurable as `store`.
        """
        parts = upload.take()
        await self._judge(upload, parts)
        return await self._state.disk.would_admit(upload.size_bytes)

    async def store(self, upload: Upload) -> Served:
        """Check and store what was received; when this returns it survives a crash.

        Raises:
            InvalidRequest: the blob is not the kind's.
            Aborted: PUT_OUTDATED or PUT_FENCED; then `persist` may have written objects.
            Overloaded: neither tier has room (the older entry is gone).
            OriginUnavailable, OriginDenied: `persist` failed, nothing was stored.
            NotDurable: the catalog cannot be written, or L1's older file cannot be removed.
        """
        # Before the task begins: the caller may leave at once, and an invalidation may come.
        self._puts.add(upload)
        # Its own task: a caller that leaves in the middle leaves no tombstone behind.
        return await self._state.outliving_its_caller(self._store(upload), name="put")

    async def _judge(self, upload: Upload, parts: tuple[Buffer, ...]) -> None:
        await self._state.in_worker(self._codec.check_parts, upload.header.kind, parts)
        await self._check_as_of(upload)
        upload.check_fence()

    async def _store(self, upload: Upload) -> Served:
        try:
            header, parts = upload.header, upload.take()
            digest = await self._state.in_worker(self._check, header.kind, parts)
            async with self._lock(header.key):
                await self._check_as_of(upload)
                stamps: tuple[OriginStamp, ...] = ()
                if header.persist:
                    stamps = await self._filler.persist(
                        header.kind, header.key, header.owner, parts, upload.check_fence
                    )
                meta = self._describe(upload, digest, stamps)
                return await self._replace(upload, meta, parts)
        finally:
            self._puts.remove(upload)

    def _check(self, kind: Kind, parts: tuple[Buffer, ...]) -> int:
        self._codec.check_parts(kind, parts)
        return checksum(*parts)

    async def _check_as_of(self, upload: Upload) -> None:
        """Refuse a source that is older than the last change, or than what a Put stored."""
        header, as_of_ns = upload.header, upload.as_of_ns
        if header.as_of_ns is None:
            # Its source is as new as this call, whatever the clock did since the last change.
            return
        now, watch = self._state.read_time(), self._state.watch
        # The caller's time, or the arrival that stands for it, may be from before the clock went
        # back: what was put or invalidated since then has an earlier time.
        if as_of_ns > now.wall_ns or any(
            watch.is_from_before(moment_ns, now) for moment_ns in (header.as_of_ns, as_of_ns)
        ):
            raise _outdated("this host's clock was set back after the time that as_of names")
        newest_ns = await self._newest_ns(header)
        if newest_ns > self._state.read_time().wall_ns:
            # The clock was ahead when that change was stored. Lower its time to now, so that
            # a source read from now on is accepted.
            await self._state.lower_changes()
            raise _outdated(_CHANGED)
        state = self._state
        if as_of_ns < state.changes_known_from_ns:
            raise _too_old(state.changes_known_from_ns, state.unknown_because)
        if as_of_ns < upload.arrival.wall_ns - MAX_SOURCE_AGE_NS:
            raise _outdated("as_of is more than 29 days old, and older changes are forgotten")
        if as_of_ns < newest_ns:
            everything = (Scope(ScopeKind.EVERYTHING),)
            from_ns = await state.disk.last_change_ns(everything)
            if as_of_ns < from_ns:
                raise _too_old(from_ns, "everything was invalidated then, or changes were lost")
            raise _outdated(_CHANGED)

    async def _newest_ns(self, header: PutHeader) -> int:
        """Return the latest known change of what is put, as wall time."""
        state = self._state
        scopes = scopes_of(header.key, header.owner, state.kinds)
        # Before the catalog is asked: a change leaves the tombstones once the catalog has it.
        newest_ns = state.tombstones.last_change_ns(header.key, header.owner)
        newest_ns = max(newest_ns, await state.disk.last_change_ns(scopes))
        row = await state.disk.lookup(header.key)
        now = state.clock.read()
        cached = state.memory.lookup(header.key, now.steady_ns)
        stored = [held.meta.as_of_ns for held in (row, cached) if held is not None]
        # A time later than now is also a recorded change, which is lowered at once.
        known = [as_of_ns for as_of_ns in stored if as_of_ns <= now.wall_ns]
        return max([newest_ns, *known])

    def _describe(self, upload: Upload, digest: int, stamps: tuple[OriginStamp, ...]) -> EntryMeta:
        header, now = upload.header, self._state.clock.read()
        return EntryMeta(
            key=header.key,
            owner=header.owner,
            generation=self._state.generations.next(now.wall_ns),
            size_bytes=upload.size_bytes,
            checksum=digest,
            stamps=stamps,
            begun_ns=upload.as_of_ns,
            origin_ns=upload.as_of_ns,
            confirmed_ns=now.steady_ns,
            base_ttl_s=header.kind.ttl_s,
            explicit_ttl_s=header.ttl_s,
            kind_version=header.kind.version,
            as_of_ns=upload.as_of_ns,
        )

    async def _replace(self, upload: Upload, meta: EntryMeta, parts: tuple[Buffer, ...]) -> Served:
        state = self._state
        written = await self._write_to_disk(meta, parts)
        with ExitStack() as held:
            try:
                room = state.memory.reserve(meta.key, meta.size_bytes)
                held.callback(state.memory.discard, room)
                await state.write_to_memory(
                    room, lambda: state.in_worker(state.memory.write, room, parts)
                )
                tombstone, durable = self._begin(upload, meta, written)
            except BaseException:  # also if cancelled: leave no file without a row
                if written is not None:
                    await state.disk.abandon(written)
                raise
            try:
                locations = await durable
            finally:
                self._end(meta.key, tombstone)
            try:
                served = self._publish(upload, meta, room, in_l2=written is not None)
            finally:
                # Even a Put that is refused here has deleted the older entry's row.
                if locations:
                    await state.disk.unlink(locations)
        state.check_nothing_owed(key_scope(meta.key))
        await state.wait_for_succession()
        state.metrics.puts.inc()
        return served._replace(in_l2=written is not None)

    async def _write_to_disk(self, meta: EntryMeta, parts: tuple[Buffer, ...]) -> Written | None:
        try:
            written = await self._state.disk.write(meta, *parts)
        except OSError as exc:
            log.warning("l2_write_failed", namespace=meta.key.namespace, error=exc.strerror)
            written = None
        if written is None:
            self._state.metrics.disk_rejections.inc()
        else:
            self._state.metrics.disk_written_bytes.inc(amount=meta.size_bytes)
        return written

    def _begin(
        self, upload: Upload, meta: EntryMeta, written: Written | None
    ) -> tuple[int, asyncio.Task[list[Location]] | asyncio.Task[None]]:
        """Hide everything older; queue the row, or the older row's DELETE if L2 has no file."""
        upload.check_fence()
        state, scope = self._state, key_scope(meta.key)
        state.flights.fence(scope)
        state.absences.clear(scope)
        state.memory.remove(meta.key, Leaving.REPLACED)
        tombstone = state.tombstones.add(scope, meta.as_of_ns)
        state.replacing.add(meta.key)
        if written is None:
            return tombstone, state.disk.invalidate(state.disk.change_of(scope, meta.as_of_ns))
        return tombstone, state.disk.commit(written, 0, state.clock.read().steady_ns)

    def _end(self, key: EntryKey, tombstone: int) -> None:
        """Lift the tombstone, and fence flights that began under it: they read older bytes."""
        state, scope = self._state, key_scope(key)
        state.replacing.discard(key)
        state.lift(tombstone, scope)
        state.flights.fence(scope)

    def _publish(self, upload: Upload, meta: EntryMeta, room: Room, *, in_l2: bool) -> Served:
        """Publish to L1, unless an invalidation came while the row was being written."""
        upload.check_fence()
        wall_ns, steady_ns = self._state.read_time()
        if meta.as_of_ns > wall_ns:  # the clock went back meanwhile
            self._state.owe_lowering()
        cached = self._state.memory.publish(room, meta, accesses=0, steady_ns=steady_ns)
        if cached is None and not in_l2:
            raise Overloaded("neither L1 nor L2 has room for this entry", reason="NO_ROOM")
        return Served(meta, room.written, Tier.MEMORY, meta.expires_ns(0))

    @asynccontextmanager
    async def _lock(self, key: EntryKey) -> AsyncIterator[None]:
        counted = self._locks.setdefault(key, _CountedLock(asyncio.Lock()))
        counted.users += 1
        try:
            async with counted.lock:
                yield
        finally:
            counted.users -= 1
            if not counted.users:
                del self._locks[key]


def _outdated(cause: str) -> Aborted:
    return Aborted(f"{cause}: read the source again", reason="PUT_OUTDATED")


def _too_old(from_ns: int, why: str) -> SourceTooOld:
    moment = datetime.fromtimestamp(from_ns // NS_PER_S, UTC)
    return SourceTooOld(
        f"as_of is before {moment:%Y-%m-%dT%H:%M:%SZ}, and earlier changes may be unknown, of any "
        f"entry: {why}; read the source again",
        sources_from_ns=from_ns,
    )


@dataclass(slots=True)
class _CountedLock:
    lock: asyncio.Lock
    users: int = 0
