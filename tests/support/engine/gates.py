"""Stops the engine's work at named points, so that a test decides what comes in between.

The tiers and the codec here are the real ones; they only wait, once, at each point where a test has
set a stop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from cachesvc.codec import members
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Field, Kind
from cachesvc.core.scopes import Change
from cachesvc.core.tensors import Buffer, DecodePlan
from cachesvc.tiers.disk import DiskTier, Written
from cachesvc.tiers.disk_files import Location
from cachesvc.tiers.memory import MemoryTier, Room
from cachesvc_format.blob import Tensor

# A failing test must not leave a worker thread behind for ever.
THREAD_LIMIT_S = 20.0


class Stop:
    """A stop at a point: it catches the first task or thread that comes, and holds it until
    released.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reached = asyncio.Event()
        self._released = asyncio.Event()
        self._released_thread = threading.Event()

    async def reached(self) -> None:
        await self._reached.wait()

    def release(self) -> None:
        self._released.set()
        self._released_thread.set()

    async def hold(self) -> None:
        self._reached.set()
        await self._released.wait()

    def hold_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._reached.set)
        self._released_thread.wait(THREAD_LIMIT_S)


class Gates:
    """The stops that a test has set, by the name of their point."""

    def __init__(self) -> None:
        self._stops: dict[str, list[Stop]] = {}
        self._all: list[Stop] = []

    def stop(self, point: str) -> Stop:
        """Hold the next arrival at `point`; a second stop holds the one after it."""
        stop = Stop()
        self._stops.setdefault(point, []).append(stop)
        self._all.append(stop)
        return stop

    def release_all(self) -> None:
        self._stops.clear()
        for stop in self._all:
            stop.release()

    async def pass_by(self, point: str) -> None:
        if stops := self._stops.get(point):
            await stops.pop(0).hold()

    def pass_by_in_thread(self, point: str) -> None:
        if stops := self._stops.get(point):
            stops.pop(0).hold_thread()


class GatedCodec:
    """The real codec. Points: `decoded`, after all members; `put_checked`, `put_encoded`."""

    def __init__(self, gates: Gates) -> None:
        self._gates = gates

    def plan_member(self, field: Field, data: bytes) -> DecodePlan:
        return members.plan_member(field, data)

    def decode_member(self, field: Field, data: bytes, plan: DecodePlan) -> Tensor:
        return members.decode_member(field, data, plan)

    def blob_parts(self, tensors: Mapping[str, Tensor]) -> Sequence[Buffer]:
        self._gates.pass_by_in_thread("decoded")
        return members.blob_parts(tensors)

    def check_parts(self, kind: Kind, parts: Sequence[Buffer]) -> object:
        found = members.check_parts(kind, parts)
        self._gates.pass_by_in_thread("put_checked")
        return found

    def encode_members(
        self, kind: Kind, blob: Buffer, starts: Mapping[str, bytes]
    ) -> Mapping[str, Buffer]:
        encoded = members.encode_members(kind, blob, starts)
        self._gates.pass_by_in_thread("put_encoded")
        return encoded


class GatedMemory(MemoryTier):
    """The real L1. Point: `l1_written`, before the file is published."""

    gates: Gates

    def write(self, room: Room, chunks: Iterable[Buffer]) -> None:
        super().write(room, chunks)
        self.gates.pass_by_in_thread("l1_written")


class GatedDisk(DiskTier):
    """The real L2.

    Points: `l2_looked_up`, `l2_read`, `l2_write`, `l2_written`, `l2_unlink`; `l2_removed`, when an
    invalidation is durable and the engine does not know it yet.
    """

    gates: Gates

    async def lookup(self, key: EntryKey) -> Row | None:
        row = await super().lookup(key)
        await self.gates.pass_by("l2_looked_up")
        return row

    async def read_into(self, row: Row, write: Callable[[Iterator[memoryview]], None]) -> None:
        await super().read_into(row, write)
        await self.gates.pass_by("l2_read")

    async def write(self, meta: EntryMeta, *parts: Buffer) -> Written | None:
        await self.gates.pass_by("l2_write")
        written = await super().write(meta, *parts)
        await self.gates.pass_by("l2_written")
        return written

    async def _finish_invalidation(
        self, change: Change, queued: asyncio.Future[list[Location]]
    ) -> list[Location]:
        locations = await super()._finish_invalidation(change, queued)
        await self.gates.pass_by("l2_removed")
        return locations

    async def unlink(self, locations: list[Location]) -> None:
        await self.gates.pass_by("l2_unlink")
        await super().unlink(locations)
