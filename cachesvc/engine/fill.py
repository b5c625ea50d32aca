"""Fetches one entry from the origin: all members at once, each decoded as soon as it is read.

A fill has a slot while it reads, and memory for each member while the member is decoded.
`fill_stages.py` says what each stage fails with, and when the origin is to blame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from cachesvc.core.buffers import joined
from cachesvc.core.checksum import checksum
from cachesvc.core.errors import (
    CacheError,
    HostBusy,
    NoSuchObject,
    ObjectChanging,
    OriginDataCorrupt,
    OriginDenied,
    OriginUnavailable,
    StaleFill,
)
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Field, Kind
from cachesvc.core.origin import Origin, OriginObject, OriginStamp
from cachesvc.core.tensors import Buffer, DecodePlan, PlanTooSmall
from cachesvc.engine.breaker import OriginBreaker
from cachesvc.engine.decoding import DecodingRoom
from cachesvc.engine.fill_stages import FillStages, Slots
from cachesvc.engine.outages import OutageLog
from cachesvc.engine.ports import Codec
from cachesvc.engine.state import State
from cachesvc_format.blob import Tensor

log = structlog.get_logger()
T = TypeVar("T")
# Raises StaleFill if the flight was fenced, Aborted if the Put was.
CheckFence = Callable[[], None]
# Same limit as the origin client's, so that writes queue here, where the fence is checked just
# before each one, and not inside the client.
MAX_CONCURRENT_WRITES = 4
EMPTY = "OBJECT_EMPTY"
# All members are asked at once, so the answers about absent ones come close together. A member that
# is there may take longer, and its bytes would not be used.
ABSENT_GRACE_S = 0.25
# An error travels in the metadata of an answer, which has 8 KiB.
MAX_OBJECTS_NAMED = 16
# Of an object that a Put replaces: they hold the name of a zip archive's first record.
START_BYTES = 512


@dataclass(frozen=True, slots=True)
class Filled:
    """An entry as the origin has it. `stamps` are in the order of the kind's fields.

    `parts` are the pieces of its blob, in order; they are written one after the other.
    """

    stamps: tuple[OriginStamp, ...]
    parts: tuple[Buffer, ...]
    size_bytes: int
    checksum: int


class Filler:
    """Reads entries from the origin, and writes them back for `persist`."""

    def __init__(self, state: State, origin: Origin, codec: Codec) -> None:
        limits = state.limits
        self._state = state
        self._origin = origin
        self._codec = codec
        self._outages = OutageLog(state.pseudonyms, self._steady_ns)
        self.breaker = OriginBreaker(
            limits.breaker_failures,
            limits.breaker_open_s,
            self._steady_ns,
            self._outages.circuit_changed,
        )
        self._decoding = DecodingRoom(limits.max_decoding_bytes)
        self._slots = Slots(limits.max_concurrent_fills, limits.max_decoding_bytes)
        self._writes = asyncio.Semaphore(MAX_CONCURRENT_WRITES)

    async def fill(self, kind: Kind, key: EntryKey, owner: str, check_fence: CheckFence) -> Filled:
        """Return the whole entry. One deadline bounds all of it, queueing included.

        Raises:
            StaleFill: `check_fence` raised it before the origin was asked.
            NoSuchObject: the origin lacks a member.
            OriginUnavailable, OriginDenied, OriginDataCorrupt, Overloaded: see core/errors.py.
        """
        started = time.monotonic()
        filled = await self._bounded(
            key, lambda stages: self._fill(kind, key, owner, stages), check_fence
        )
        log.info(
            "filled",
            namespace=key.namespace,
            size_bytes=filled.size_bytes,
            took_ms=_ms_since(started),
        )
        return filled

    async def refill_if_changed(
        self,
        kind: Kind,
        key: EntryKey,
        owner: str,
        stamps: tuple[OriginStamp, ...],
        check_fence: CheckFence,
    ) -> Filled | tuple[OriginStamp, ...]:
        """Return the entry if a member has changed, otherwise the members' current stamps.

        Sends one conditional request for each member; unchanged members have no body. Has the
        deadline and the errors of `fill`.
        """
        started = time.monotonic()
        found = await self._bounded(
            key,
            lambda stages: self._refill_if_changed(kind, key, owner, stamps, stages),
            check_fence,
        )
        log.info(
            "revalidated",
            namespace=key.namespace,
            changed=isinstance(found, Filled),
            took_ms=_ms_since(started),
        )
        return found

    async def _refill_if_changed(
        self,
        kind: Kind,
        key: EntryKey,
        owner: str,
        stamps: tuple[OriginStamp, ...],
        stages: FillStages,
    ) -> Filled | tuple[OriginStamp, ...]:
        metrics = self._state.metrics
        found = await all_or_none(self._read_if_changed(stamp, stages) for stamp in stamps)
        unchanged = tuple(answer for answer in found if isinstance(answer, OriginStamp))
        if len(unchanged) == len(found):
            metrics.revalidations.inc("unchanged")
            return unchanged
        metrics.revalidations.inc("changed")
        # Changes are rare, so all members are read again: an entry never mixes two answers.
        return await self._fill(kind, key, owner, stages)

    async def _bounded(
        self,
        key: EntryKey,
        work: Callable[[FillStages], Coroutine[Any, Any, T]],
        check_fence: CheckFence,
    ) -> T:
        """Run `work` inside the breaker and with a slot; one deadline includes the queueing.

        A fill that was fenced while it queued gives its slot back unused: otherwise a key that
        is invalidated again and again would take all slots.
        """
        metrics, started = self._state.metrics, time.monotonic()
        try:
            with self._told_the_log(), self.breaker.asking(key) as asking:
                stages = FillStages(self._state.limits.fill_deadline_s, asking.answered)
                try:
                    async with (
                        asyncio.timeout(self._state.limits.fill_deadline_s) as deadline,
                        self._slots.taken(stages),
                    ):
                        stages.runs_until(deadline)
                        check_fence()
                        return await work(stages)
                except TimeoutError as exc:
                    raise stages.too_late() from exc
        except StaleFill:
            raise
        except NoSuchObject as exc:
            metrics.absent_fills.inc()
            self._outages.found_absent(key, exc, _ms_since(started))
            raise
        except CacheError as exc:
            metrics.failed_fills.inc()
            self._outages.fill_failed(key, exc, _ms_since(started))
            raise

    @contextmanager
    def _told_the_log(self) -> Iterator[None]:
        """Tell the outage log whether the origin answers."""
        try:
            yield
            self._outages.answered()
        except ObjectChanging:
            self._outages.answered()
            raise
        except OriginUnavailable as exc:
            self._outages.could_not_ask(exc)
            raise
        except (StaleFill, HostBusy):
            raise
        except CacheError:
            self._outages.answered()
            raise

    def _steady_ns(self) -> int:
        return self._state.clock.read().steady_ns

    async def _read_if_changed(
        self, stamp: OriginStamp, stages: FillStages
    ) -> OriginObject | OriginStamp:
        with self._counted(stages), stages.reading(stamp.object_key):
            return await self._origin.read_if_changed(stamp)

    def _deadline(self) -> asyncio.Timeout:
        return asyncio.timeout(self._state.limits.fill_deadline_s)

    async def _fill(self, kind: Kind, key: EntryKey, owner: str, stages: FillStages) -> Filled:
        self._state.metrics.fills.inc()
        objects = [kind.object_key(field, key, owner) for field in kind.fields]
        stages.begin_reading(objects, self._state.limits.max_entry_bytes)
        members = await all_or_none(
            self._member(field, object_key, stages)
            for field, object_key in zip(kind.fields, objects, strict=True)
        )
        tensors = {
            field.name: tensor for field, (_, tensor) in zip(kind.fields, members, strict=True)
        }
        stages.check_size(sum(tensor.size_bytes for tensor in tensors.values()))
        stamps = tuple(stamp for stamp, _ in members)
        filled: Filled = await self._state.in_worker(self._assemble, stamps, tensors)
        return filled

    def _assemble(self, stamps: tuple[OriginStamp, ...], tensors: dict[str, Tensor]) -> Filled:
        parts = tuple(self._codec.blob_parts(tensors))
        size_bytes = sum(memoryview(part).nbytes for part in parts)
        return Filled(stamps, parts, size_bytes, checksum(*parts))

    @contextmanager
    def _counted(self, stages: FillStages) -> Iterator[None]:
        """Count and time one request to the origin."""
        outcome: str | None = "unavailable"
        started = time.monotonic()
        try:
            yield
            outcome = "ok"
        except asyncio.CancelledError:
            if not stages.is_origin_late():
                outcome = "cancelled"
            raise
        except NoSuchObject:
            outcome = "not_found"
            raise
        except OriginDenied:
            outcome = "denied"
            raise
        except OriginDataCorrupt:
            outcome = "corrupt"
            raise
        except HostBusy:
            outcome = None  # the request did not reach the origin
            raise
        finally:
            if outcome is not None:
                self._state.metrics.origin_requests.inc(outcome)
            self._state.metrics.stage_seconds.observe(time.monotonic() - started, "origin")

    async def _member(
        self, field: Field, object_key: str, stages: FillStages
    ) -> tuple[OriginStamp, Tensor]:
        with stages.reading(object_key), self._counted(stages):
            found = await self._origin.read(object_key)
        stages.has_read(found.data)
        return found.stamp, await self._decoded(field, object_key, found.data, stages)

    async def _decoded(
        self, field: Field, object_key: str, data: bytes, stages: FillStages
    ) -> Tensor:
        """Decode one member, after its header has shown that the entry is not too large."""
        try:
            if not data:
                raise OriginDataCorrupt("the object is empty", reason=EMPTY)
            plan = self._codec.plan_member(field, data)
            try:
                return await self._decoded_as_planned(field, object_key, data, plan, stages)
            except PlanTooSmall as exc:
                plan = exc.plan
            return await self._decoded_as_planned(field, object_key, data, plan, stages)
        except OriginDataCorrupt as exc:
            self._state.metrics.decode_failures.inc()
            exc.object_keys = (object_key,)
            raise
        except MemoryError as exc:
            raise HostBusy(
                "this host has no memory left to decode the entry; retry later",
                reason="HOST_RESOURCES",
                object_keys=(object_key,),
            ) from exc

    async def _decoded_as_planned(
        self, field: Field, object_key: str, data: bytes, plan: DecodePlan, stages: FillStages
    ) -> Tensor:
        stages.expect(plan.size_bytes, object_key)
        async with self._decoding.taken(plan.needed_bytes):
            started = time.monotonic()
            tensor: Tensor = await self._state.in_worker(
                self._codec.decode_member, field, data, plan
            )
        self._state.metrics.stage_seconds.observe(time.monotonic() - started, "decode")
        return tensor

    async def persist(
        self,
        kind: Kind,
        key: EntryKey,
        owner: str,
        parts: Sequence[Buffer],
        check_fence: CheckFence,
    ) -> tuple[OriginStamp, ...]:
        """Write the entry's members to the origin, in the forms found there; return their stamps.

        The fence is checked right before each write, otherwise:

            A: Put of photo 1 waits | B: photo 2 is uploaded, invalidates, answers
            A: writes photo 1 over photo 2 | the next Get fills photo 1, for good

        Raises:
            OriginUnavailable, OriginDenied: some members may have been written.
            Aborted: `check_fence` raised it. A write already under way cannot be recalled.
        """
        keys = {field.name: kind.object_key(field, key, owner) for field in kind.fields}

        async def write(field: Field, data: Buffer) -> OriginStamp:
            async with self._writes:
                check_fence()
                return await self._origin.write(keys[field.name], data)

        try:
            async with self._deadline():
                starts = await self._starts(kind, keys)
                objects = await self._state.in_worker(
                    lambda: self._codec.encode_members(kind, joined(parts), starts)
                )
                return tuple(
                    await all_or_none(write(field, objects[field.name]) for field in kind.fields)
                )
        except TimeoutError as exc:
            raise OriginUnavailable(
                "the origin did not take the objects in time; retry", reason="PERSIST_DEADLINE"
            ) from exc

    async def _starts(self, kind: Kind, keys: Mapping[str, str]) -> dict[str, bytes]:
        """Return the first bytes of the objects whose forms differ; empty for an absent object."""
        names = [field.name for field in kind.fields if field.encoding.has_forms]
        starts = await all_or_none(self._start_of(keys[name]) for name in names)
        return dict(zip(names, starts, strict=True))

    async def _start_of(self, object_key: str) -> bytes:
        async with self._writes:
            try:
                return await self._origin.read_start(object_key, START_BYTES)
            except (NoSuchObject, OriginDenied):
                # Without s3:ListBucket an absent object is refused. If writing is refused too,
                # the write says so.
                return b""


async def all_or_none(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run `works` concurrently; the first failure cancels the rest and is raised.

    An absence names every object that is absent, as far as the answers come within ABSENT_GRACE_S.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except NoSuchObject as absence:
        await asyncio.wait(tasks, timeout=ABSENT_GRACE_S)
        absence.object_keys = _absent(tasks)
        raise
    finally:
        for task in tasks:
            task.cancel()
        # A cancelled read still has a connection to give back.
        await asyncio.gather(*tasks, return_exceptions=True)


def _absent(tasks: Iterable[asyncio.Future[T]]) -> tuple[str, ...]:
    """Return the objects that the tasks so far found absent, in the tasks' order."""
    errors = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    absences = [error for error in errors if isinstance(error, NoSuchObject)]
    return tuple(key for error in absences for key in error.object_keys)[:MAX_OBJECTS_NAMED]


def _ms_since(started: float) -> float:
    return round((time.monotonic() - started) * 1e3, 3)
