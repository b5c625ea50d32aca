"""One life of an engine, in a process that will be killed.

The engine opens what its predecessor left, examines it, and then works at random until the end. It
tells every answer through `tell` before the next step.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

from cachesvc.core.clock import Clock
from cachesvc.core.entry import Row
from cachesvc.core.errors import Aborted, CacheError, NoSuchObject, PreconditionFailed
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.core.watermarks import Watermarks
from cachesvc.engine.put import PutHeader
from tests.crash.ledger import Event, Ledger
from tests.crash.swatches import KEYS, KINDS, OWNER, SWATCH, blob_of, member_of, version_of
from tests.support.engine.house import EngineHouse
from tests.support.engine.origin import ScriptedOrigin

CAPACITY_BYTES = 64 << 20
WRITERS = 2
READERS = 1
Tell = Callable[[Event], None]


class BrokenPromise(AssertionError):
    """The engine broke a promise."""


class Life:
    """An engine over `folder` (which survives) and `runtime` (L1), and its only client.

    `ledger` has what its predecessors have answered.
    """

    def __init__(
        self, folder: Path, runtime: Path, ledger: Ledger, tell: Tell, choose: random.Random
    ) -> None:
        self._ledger = ledger
        self._tell_killer = tell
        self._choose = choose
        self.may_lose_catalog = False
        self._locks = [asyncio.Lock() for _ in KEYS]
        self.house = EngineHouse(folder, runtime)
        self.house.clock = Clock()  # type: ignore[assignment]
        self.house.kinds = KINDS
        self.house.origin = ScriptedOrigin(self.house.clock, self.house.gates)
        # No room above the low mark, so `evict` frees exactly what it is asked to free.
        self.house.watermarks = Watermarks(CAPACITY_BYTES, CAPACITY_BYTES, CAPACITY_BYTES)
        self.house.on_disk_removal = self._tell_eviction

    def open(self) -> None:
        """Start the engine. The origin has the same objects as before."""
        self.house.open(origin_after_grace_ns=0)
        for key in KEYS:
            if version := self._ledger.of(key).at_origin:
                self._hold(key, version)

    def _tell(self, what: str, version: int, *keys: EntryKey, wall_ns: int = 0) -> None:
        indexes = tuple(KEYS.index(key) for key in keys)
        event = Event(what, version, indexes, wall_ns, time.monotonic())
        self._tell_killer(event)
        self._ledger.apply(event)

    def _tell_eviction(self, row: Row, cause: Leaving) -> None:
        """Tell an eviction: a write on a full disk (ENOSPC) evicts, whatever the marks say."""
        if cause is Leaving.DISK_SPACE:
            self._tell("leaving_begun", 0, row.meta.key)

    def _next_version(self) -> int:
        self._ledger.newest += 1
        return self._ledger.newest

    def _hold(self, key: EntryKey, version: int) -> None:
        for field in SWATCH.fields:
            self.house.origin.hold(SWATCH.object_key(field, key, OWNER), member_of(version))

    # ---- the check after a start

    async def examine(self) -> None:
        """Compare L2 with what was answered. Raises BrokenPromise."""
        self.check_catalog()
        if left := list((self.house.root / ".tmp").iterdir()):
            raise BrokenPromise(f"half-written files after the start: {left}")
        if left := list((self.house.runtime / "l1").iterdir()):
            raise BrokenPromise(f"L1 is not empty after the start: {left}")
        for key in KEYS:
            await self._examine_key(key)
        await self._examine_litter()
        self._tell("examined", 0, *KEYS)

    def check_catalog(self) -> None:
        """Setting the catalog aside costs all of L2: only lasting damage may do that."""
        if self.house.catalog_resets:
            if not self.may_lose_catalog:
                raise BrokenPromise("the catalog was set aside")
            self._tell("leaving_begun", 0, *KEYS)

    async def _examine_key(self, key: EntryKey) -> None:
        account = self._ledger.of(key)
        version = await self._version_in_l2(key)
        if version is None:
            if account.stored:
                raise BrokenPromise(f"{key}: L2 lost version {account.stored}")
        elif not max(account.floor, account.stored) <= version <= self._ledger.newest:
            raise BrokenPromise(f"{key}: L2 has version {version}: {account}")

    async def _version_in_l2(self, key: EntryKey) -> int | None:
        try:
            served = await self.house.get(key, owner="", may_ask_origin=False)
        except PreconditionFailed:
            served = None
        if self.house.metrics.value("damaged_entries"):
            raise BrokenPromise(f"{key}: a file does not match its row")
        return None if served is None else version_of(served.blob.view())

    async def _examine_litter(self) -> None:
        """Check that after a sweep files and rows match, and that the totals count them."""
        house = self.house
        await self.sweep()
        with closing(sqlite3.connect(house.state_dir / "catalog.sqlite")) as db:
            rows = db.execute("SELECT namespace, id, generation, stored_bytes FROM entries")
            found = rows.fetchall()
        expected = {house.root / n / i / f"{g}.safetensors" for n, i, g, _ in found}
        if (files := set(house.files())) != expected:
            raise BrokenPromise(f"files and rows differ: {files ^ expected}")
        for namespace in KINDS.namespaces:
            sizes = [size for n, _, _, size in found if n == namespace]
            total = house.disk.totals.get(namespace)
            counted = (total.entries, total.stored_bytes) if total else (0, 0)
            if counted != (len(sizes), sum(sizes)):
                raise BrokenPromise(f"{namespace}: counted {counted}, there are {sizes}")

    async def sweep(self) -> None:
        """Delete files without a row, as a daemon does behind its first answers."""
        # The daemon's sweep goes on after a walk that failed; this check must see the error.
        house = self.house
        before = house.engine.generations.next(house.clock.read().wall_ns)
        for namespace in KINDS.namespaces:
            await house.disk.litter.sweep(namespace, before)

    # ---- work

    async def work(self) -> None:
        """Do random things until the end, several at once. Raises BrokenPromise."""
        writers = [self._repeat(self._change_something) for _ in range(WRITERS)]
        readers = [self._repeat(self.look_up) for _ in range(READERS)]
        async with asyncio.TaskGroup() as group:
            for worker in (*writers, *readers):
                group.create_task(worker)

    async def _repeat(self, act: Callable[[EntryKey], Coroutine[Any, Any, None]]) -> None:
        while True:
            await act(self._choose.choice(KEYS))
            await asyncio.sleep(0)

    async def _change_something(self, key: EntryKey) -> None:
        acts = (
            self.put, self.put, self.put, self.replace, self.refill, self.put_late, self.evict,
            self.invalidate, self.invalidate, self.erase, self.invalidate_wide,
        )  # fmt: skip
        await self._choose.choice(acts)(key)

    @asynccontextmanager
    async def _alone(self, *keys: EntryKey) -> AsyncIterator[None]:
        """Be the only writer of these keys, so that the order of their versions is known."""
        async with AsyncExitStack() as stack:
            for index in sorted(KEYS.index(key) for key in keys):
                await stack.enter_async_context(self._locks[index])
            yield

    async def put(self, key: EntryKey, **more: Any) -> None:
        """Put a newer version, which the origin gets too, as with `persist`."""
        async with self._alone(key):
            version = self._next_version()
            self._tell("upload", version, key)
            self._hold(key, version)
            self._tell("put_begun", version, key)
            try:
                is_stored = await self._store(key, version, **more)
            except CacheError:
                self._tell("put_failed", 0, key)
                raise
            self._tell("put" if is_stored else "put_unstored", version, key)

    async def replace(self, key: EntryKey) -> None:
        """Put an entry over one that surely exists."""
        await self.put(key)
        await self.put(key)

    async def _store(self, key: EntryKey, version: int, **more: Any) -> bool:
        """Return whether L2 stored the entry: a failing disk admits nothing."""
        header = PutHeader(key, SWATCH, OWNER, **more)
        rejections = self.house.metrics.value("disk_rejections")
        async with self.house.cache.receive_put(header) as upload:
            upload.append(blob_of(version))
            await self.house.cache.store_put(upload)
        return self.house.metrics.value("disk_rejections") == rejections

    async def put_late(self, key: EntryKey) -> None:
        """Put bytes that were read before the last change: the Put must be refused."""
        async with self._alone(key):
            if not (changed_ns := self._ledger.of(key).changed_ns):
                return
            try:
                await self._store(key, 1, as_of_ns=changed_ns - 1)
            except Aborted:
                self._tell("refused", 0, key)
            else:
                raise BrokenPromise(f"{key}: a Put from before the last change was stored")

    async def refill(self, key: EntryKey) -> None:
        """Have the origin's newer version fetched in place of the cached one."""
        async with self._alone(key):
            self._tell("leaving_begun", 0, key)
            version = self._next_version()
            self._tell("upload", version, key)
            needed_ns = self.house.clock.read().wall_ns - 1_000
            self._hold(key, version)
            await self.get(key, origin_after_ns=needed_ns)

    async def invalidate(self, key: EntryKey) -> None:
        await self._invalidate(key_scope(key), key)

    async def erase(self, key: EntryKey) -> None:
        """Invalidate a garment: both namespaces."""
        scope = subject_scope(SWATCH.subject, key.id, KINDS)
        await self._invalidate(scope, *(k for k in KEYS if k.id == key.id), erase=True)

    async def invalidate_wide(self, key: EntryKey) -> None:
        kind = self._choose.choice((ScopeKind.OWNER, ScopeKind.NAMESPACE, ScopeKind.EVERYTHING))
        values = {ScopeKind.OWNER: OWNER, ScopeKind.NAMESPACE: key.namespace}
        scope = Scope(kind, values.get(kind, ""))
        await self._invalidate(scope, *(k for k in KEYS if scope.covers(k, OWNER)))

    async def _invalidate(self, scope: Scope, *keys: EntryKey, erase: bool = False) -> None:
        async with self._alone(*keys):
            self._tell("change_begun", 0, *keys)
            version = self._next_version()
            self._tell("upload", version, *keys)
            for key in keys:
                self._hold(key, version)
            done = await self.house.cache.invalidate(scope, erase=erase)
            self._tell("change", version, *keys, wall_ns=done.at.wall_ns)

    async def evict(self, key: EntryKey) -> None:
        """Evict from L2. Any entry may leave, so no Put runs meanwhile."""
        async with self._alone(*KEYS):
            self._tell("leaving_begun", 0, *KEYS)
            disk = self.house.disk
            some_bytes = int(self._choose.random() * disk.room.used_bytes)
            await disk.evict(CAPACITY_BYTES - disk.room.used_bytes + some_bytes)

    async def look_up(self, key: EntryKey) -> None:
        """Get the key from L2 or the origin: L1 may be made to forget it before."""
        if self._choose.random() < 0.5:
            self.house.memory.remove(key, Leaving.BYTES_LIMIT)
        await self.get(key)

    async def get(self, key: EntryKey, **more: Any) -> None:
        """Get the key; the version must not be older than what was answered."""
        floor = self._ledger.of(key).floor
        try:
            served = await self.house.get(key, owner=OWNER, **more)
        except Aborted:  # one change after another overtook the Get: a valid answer
            return
        except (NoSuchObject, PreconditionFailed) as exc:
            # An absence may be remembered until the first change is answered.
            if floor:
                raise BrokenPromise(f"{key}: the origin has it, and yet: {exc!r}") from exc
            return
        data = bytes(served.blob.view())
        if served.blob.is_erased:  # erased while it was read here: the edge would answer ERASED
            return
        version = version_of(memoryview(data))
        if version < floor:
            raise BrokenPromise(f"{key}: served {version} from {served.tier}, floor {floor}")
        self._tell("get", version, key)
