"""What stands around the engine in a simulation: kinds, codec, origin, clock, the catalog's writer.

Each answers at a moment that the seed chooses. The origin answers each read with the moment of
that read, so an entry's content shows when its objects were read.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from cachesvc.core.clock import Now
from cachesvc.core.errors import (
    InvalidRequest,
    NoSuchObject,
    NotDurable,
    OriginDenied,
    OriginUnavailable,
)
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Encoding, Field, Kind, Kinds, Namespace, Subject
from cachesvc.core.origin import OriginObject, OriginStamp
from cachesvc.core.tensors import Buffer, DecodePlan
from cachesvc.tiers.directories import directory
from cachesvc.tiers.disk_files import TEMPORARY, DiskFiles, Location
from cachesvc.tiers.write_queue import RunBatch, Write, WriteQueue, resolve
from cachesvc_format.blob import Tensor
from tests.simulation.history import History, Overlap
from tests.simulation.scheduler import VirtualLoop
from tests.support.clocks import START_NS

PERSON = Kind(
    name="person",
    namespaces=(Namespace("upper", "upper"), Namespace("lower", "lower")),
    fields=(
        Field("image", Encoding.PNG, "{owner}/{part}/image"),
        Field("pose", Encoding.PICKLE, "{owner}/{part}/pose"),
    ),
    subject=Subject.USER,
    max_entries=1,
    private=True,
    ttl_s=3.0,
    absent_ttl_s=0.2,
)
GARMENT = Kind(
    name="garment",
    namespaces=(Namespace("garment"),),
    fields=(
        Field("image", Encoding.PNG, "{owner}/garment/{id}/image"),
        Field("tensor", Encoding.PICKLE, "{owner}/garment/{id}/tensor"),
    ),
    subject=Subject.CLOTHING,
    max_entries=1,
    ttl_s=2.0,
    stale_if_error_s=3.0,
    absent_ttl_s=0.2,
)
KINDS = Kinds((PERSON, GARMENT))
SHORT = 12  # bytes of a member that holds only its moment


def member_of(moment: int, size_bytes: int = SHORT) -> bytes:
    return f"{moment:>{size_bytes}}".encode()


def moments_of(blob: bytes | memoryview) -> list[int]:
    """Return the moments at which an entry's members were read."""
    return [int(part) for part in bytes(blob).split(b"|")]


def blob_of(kind: Kind, moment: int, size_bytes: int = SHORT) -> bytes:
    """Return an entry of `kind` whose members were all read at one moment."""
    return b"|".join(member_of(moment, size_bytes) for _ in kind.fields)


class PlainCodec:
    """Joins the members of an entry without changing them."""

    def plan_member(self, field: Field, data: bytes) -> DecodePlan:
        return DecodePlan(len(data), len(data))

    def decode_member(self, field: Field, data: bytes, plan: DecodePlan) -> Tensor:
        return Tensor("U8", (len(data),), data)

    def blob_parts(self, tensors: Mapping[str, Tensor]) -> Sequence[Buffer]:
        return [b"|".join(bytes(tensor.data) for tensor in tensors.values())]

    def check_parts(self, kind: Kind, parts: Sequence[Buffer]) -> object:
        if len(b"".join(parts).split(b"|")) != len(kind.fields):
            raise InvalidRequest("another number of members")
        return None

    def encode_members(
        self, kind: Kind, blob: Buffer, starts: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        return dict(zip(kind.field_names, bytes(blob).split(b"|"), strict=True))


class LoopClock:
    """The host's clocks. `wall_off_ns` is by how much its wall clock is wrong.

    As in core.clock, the steady clock starts with the wall clock's time. `true_ns` is the time
    of all other machines: of the origin, and of callers that name the time of a change.
    """

    def __init__(self, loop: VirtualLoop, wall_off_ns: int = 0) -> None:
        self._loop = loop
        self._steady_off_ns = wall_off_ns
        self.wall_off_ns = wall_off_ns

    @property
    def true_ns(self) -> int:
        return START_NS + self._loop.now_ns

    def read(self) -> Now:
        return Now(self.true_ns + self.wall_off_ns, self.steady_at(self.true_ns))

    def steady_at(self, true_ns: int) -> int:
        return true_ns + self._steady_off_ns


class FillableFiles(DiskFiles):
    """L2's files on a disk that can be full: it then refuses writes, and nothing else."""

    is_full = False

    def write(self, location: Location, *parts: Buffer) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(location, *parts)

    def unfinished(self) -> list[str]:
        """Return the names of files that were begun and not yet renamed to their place."""
        with directory(self._root_fd, TEMPORARY) as fd:
            return os.listdir(fd)


class Trouble(Enum):
    """What the origin does in an outage."""

    AWAY = "away"
    SLOW = "slow"
    DENIES = "denies"


# No deadline of a fill is longer than this.
SLOW_S = 6.0


class TellingOrigin:
    """Implements core.origin.Origin. Outlives the engines; `clock` is the life's.

    `troubles` is the outage, if there is one: which entries it is about, and what it does.
    """

    def __init__(self, history: History, choose: random.Random) -> None:
        self._history = history
        self._choose = choose
        self._uploads = 0
        # object key -> (etag, last_modified_ns)
        self._objects: dict[str, tuple[str, int]] = {}
        self._owners: dict[str, tuple[EntryKey, str]] = {}
        self.troubles: dict[EntryKey, Trouble] = {}
        self.sizes_bytes: tuple[int, ...] = (SHORT,)
        self.clock: LoopClock
        self.reads = 0
        # object key -> when the reads that are under way began
        self._reading: dict[str, list[int]] = {}

    def know(self, key: EntryKey, owner: str) -> None:
        """Learn the object keys of an entry."""
        kind = KINDS.of(key.namespace)
        for member in kind.fields:
            self._owners[kind.object_key(member, key, owner)] = (key, owner)

    def upload(self, object_key: str) -> None:
        self._uploads += 1
        self._objects[object_key] = (f"e{self._uploads}", self.clock.true_ns)

    def delete(self, object_key: str) -> None:
        self._objects.pop(object_key, None)

    async def start(self) -> None: ...

    async def read(self, object_key: str) -> OriginObject:
        moment, (etag, changed_ns) = await self._ask(object_key)
        stamp = OriginStamp(object_key, etag, changed_ns / 1e9)
        return OriginObject(stamp, member_of(moment, self._choose.choice(self.sizes_bytes)))

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        found = await self.read(stamp.object_key)
        return found.stamp if found.stamp.etag == stamp.etag else found

    async def _ask(self, object_key: str) -> tuple[int, tuple[str, int]]:
        """Read the object at one moment between the request and the answer."""
        key, owner = self._owners[object_key]
        began = self._history.moment()
        under_way = self._reading.setdefault(object_key, [])
        self._history.overlaps += [Overlap(key, owner, first, began) for first in under_way]
        under_way.append(began)
        try:
            return await self._answer(object_key, key, owner)
        finally:
            under_way.remove(began)

    async def _answer(
        self, object_key: str, key: EntryKey, owner: str
    ) -> tuple[int, tuple[str, int]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await asyncio.sleep(loop.delay_s())
        self.reads += 1
        await self._suffer(self.troubles.get(key))
        held = self._objects.get(object_key)
        source = self._history.add_source(
            key, owner, changed_ns=held[1] if held else 0, is_absent=held is None
        )
        await asyncio.sleep(loop.delay_s())
        if held is None:
            raise NoSuchObject("absent", object_keys=(object_key,))
        return source.moment, held

    async def _suffer(self, trouble: Trouble | None) -> None:
        """Fail as `trouble` says, before an object is read: the history has no source of it."""
        match trouble:
            case Trouble.AWAY:
                raise OriginUnavailable("away")
            case Trouble.SLOW:
                await asyncio.sleep(SLOW_S)
                raise AssertionError("a fill outlived its deadline")
            case Trouble.DENIES:
                raise OriginDenied("denied")

    async def read_start(self, object_key: str, size_bytes: int) -> bytes:
        raise NotImplementedError("no Put of a simulation persists")

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        raise NotImplementedError("no Put of a simulation persists")

    async def check(self) -> None: ...

    async def close(self) -> None: ...


class ScheduledWrites(WriteQueue):
    """The catalog's writer without a thread.

    It commits writes in order, some of them together; their futures are resolved later.
    """

    def __init__(self, run_batch: RunBatch, loop: VirtualLoop, choose: random.Random) -> None:
        self._run_batch = run_batch
        self._loop = loop
        self._choose = choose
        self._waiting: list[Write[Any]] = []
        self._is_running = False
        self.failing = False
        self.failed = 0

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def put(self, run: Callable[[Any], Any]) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        self._waiting.append(Write(run, future))
        self._begin()
        return future

    def _begin(self) -> None:
        if self._waiting and not self._is_running:
            self._is_running = True
            self._loop.call_later(self._loop.delay_s(), self._commit)

    def _commit(self) -> None:
        count = self._choose.randint(1, len(self._waiting))
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        if self.failing:
            self.failed += len(batch)
            for write in batch:
                write.error = NotDurable("the disk is full")
        else:
            self._run_batch(batch)
        self._is_running = False
        self._loop.call_later(self._loop.delay_s(), resolve, batch)
        self._begin()

    def close(self) -> None:
        """Crash: drop the writes that are queued."""
        self._waiting.clear()
