"""An origin whose every answer a test decides: its objects, its delays, its failures."""

from __future__ import annotations

from cachesvc.core.errors import CacheError, NoSuchObject
from cachesvc.core.origin import OriginObject, OriginStamp
from cachesvc.core.tensors import Buffer
from tests.support.clocks import ManualClock
from tests.support.engine.gates import Gates


class ScriptedOrigin:
    """Implements core.origin.Origin over a dict.

    A read takes the object at once, and may then be held at the point `origin {object_key}`: the
    bytes are as old as the request. A write may be held at `origin_write {object_key}`, before it
    replaces anything.
    """

    def __init__(self, clock: ManualClock, gates: Gates) -> None:
        self._clock = clock
        self._gates = gates
        self._versions = 0
        self.objects: dict[str, OriginObject] = {}
        self.errors: dict[str, CacheError] = {}
        self.start_errors: dict[str, CacheError] = {}
        self.reads: list[str] = []
        self.starts_read: list[str] = []
        self.writes: list[str] = []
        self.unchanged = 0

    def hold(self, object_key: str, data: bytes, last_modified_s: float | None = None) -> None:
        """Store `object_key`, last modified now unless another time is given."""
        if last_modified_s is None:
            last_modified_s = self._clock.read().wall_ns / 1e9
        self._versions += 1
        stamp = OriginStamp(object_key, f"v{self._versions}", last_modified_s)
        self.objects[object_key] = OriginObject(stamp, data)

    def sets_read(self, object_key: str) -> int:
        """Return how often `object_key` was read: once for each set of reads."""
        return self.reads.count(object_key)

    async def start(self) -> None: ...

    async def read(self, object_key: str) -> OriginObject:
        self.reads.append(object_key)
        found = self.objects.get(object_key)
        await self._gates.pass_by(f"origin {object_key}")
        if object_key in self.errors:
            raise self.errors[object_key]
        if found is None:
            raise NoSuchObject("the origin has no such object", object_keys=(object_key,))
        return found

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        found = await self.read(stamp.object_key)
        if found.stamp.etag == stamp.etag:
            self.unchanged += 1
            return found.stamp
        return found

    async def read_start(self, object_key: str, size_bytes: int) -> bytes:
        self.starts_read.append(object_key)
        if object_key in self.start_errors:
            raise self.start_errors[object_key]
        if object_key not in self.objects:
            raise NoSuchObject("the origin has no such object", object_keys=(object_key,))
        return self.objects[object_key].data[:size_bytes]

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        self.writes.append(object_key)
        await self._gates.pass_by(f"origin_write {object_key}")
        if object_key in self.errors:
            raise self.errors[object_key]
        self.hold(object_key, bytes(data))
        return self.objects[object_key].stamp

    async def check(self) -> None: ...

    async def close(self) -> None: ...
