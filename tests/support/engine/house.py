"""A whole engine over real tiers, a scripted origin and a clock that only tests move."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import GenerationSource
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, Kinds
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.core.watermarks import Watermarks
from cachesvc.engine.cache import Cache
from cachesvc.engine.flight import Served
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.put import PutHeader
from cachesvc.engine.state import Limits, State
from cachesvc.metrics import Metrics
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.disk import OnLeaving
from cachesvc.tiers.disk_files import DiskFiles
from cachesvc.tiers.witness import Witness
from tests.support.clocks import ManualClock
from tests.support.engine.entries import blob_of, member_of, version_of
from tests.support.engine.gates import GatedCodec, GatedDisk, GatedMemory, Gates
from tests.support.engine.origin import ScriptedOrigin
from tests.support.entry_files import entry_files

MIB = 1 << 20
LIMITS = Limits(
    breaker_failures=5,
    breaker_open_s=5.0,
    max_entry_bytes=MIB,
    max_flights=1024,
    max_concurrent_fills=8,
    max_concurrent_warmups=8,
    max_warm_keys=100,
    max_concurrent_puts=64,
    max_pending_bytes=16 * MIB,
    max_decoding_bytes=16 * MIB,
    fill_deadline_s=30.0,
    origin_after_grace_ns=2 * NS_PER_S,
)


class EngineHouse:
    """An engine and everything around it; `restart` ends it as a crash does, and starts another."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.root = folder / "l2"
        self.state_dir = folder / "state"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.runtime = runtime
        self.clock = ManualClock()
        self.gates = Gates()
        self.origin = ScriptedOrigin(self.clock, self.gates)
        self.kinds = Kinds(BUILT_IN)
        self.limits = LIMITS
        self.watermarks = Watermarks(48 * MIB, 56 * MIB, 64 * MIB)
        self.memory_max_bytes = MIB
        self.keep_expired_ns = 0
        # With one gate each, the same call always comes from the same thread.
        self.disk_threads = 4
        self.worker_threads = 4
        self.catalog_resets = 0
        self.on_disk_removal: OnLeaving = lambda row, cause: None

    # ---- life

    def open(self, **limits: Any) -> None:
        """Start an engine on the files in the directories."""
        self.limits = replace(self.limits, **limits)
        self.metrics = Metrics("test")
        disk_files = DiskFiles(self.root, self.kinds.namespaces)
        self.catalog = Catalog(
            self.state_dir,
            on_reset=self._count_reset,
            read_time=self.clock.read,
            witnesses=(disk_files.witness(), self._runtime_witness()),
            anchors=(disk_files.anchor(),),
        )
        self.disk = GatedDisk(
            disk_files,
            self.catalog,
            self.watermarks,
            on_leaving=lambda row, cause: self.on_disk_removal(row, cause),
            on_damage=self.metrics.damaged.inc,
            on_no_room=self.metrics.disk_refused_writes.inc,
            keep_expired_ns=self.keep_expired_ns,
            read_threads=self.disk_threads,
            write_threads=self.disk_threads,
        )
        self.disk.gates = self.gates
        namespaces = {
            name: NamespaceLimits(self.kinds.of(name).max_entries) for name in self.kinds.namespaces
        }
        self.memory = GatedMemory(
            self.runtime / "l1",
            namespaces,
            self.memory_max_bytes,
            on_leaving=lambda entry, cause: None,
        )
        self.memory.gates = self.gates
        self._workers = ThreadPoolExecutor(self.worker_threads, thread_name_prefix="worker")
        self.engine = State(
            kinds=self.kinds,
            clock=self.clock,
            memory=self.memory,
            disk=self.disk,
            metrics=self.metrics,
            limits=self.limits,
            generations=GenerationSource(self.disk.last_generation),
            workers=self._workers,
        )
        self.cache = Cache(self.engine, self.origin, GatedCodec(self.gates))

    def _runtime_witness(self) -> Witness:
        fd = os.open(self.runtime, os.O_RDONLY)
        try:
            return Witness(fd, "catalog", knows_one_catalog=False)
        finally:
            os.close(fd)

    async def end(self) -> None:
        """Cancel all work where it is, and close; nothing is drained or flushed."""
        self.gates.release_all()
        tasks = self.engine.tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.disk.close)
        self.memory.close()
        self._workers.shutdown()

    async def restart(self) -> None:
        await self.end()
        self.clock.restart()
        self.open()

    async def settle(self) -> None:
        """Return once all work behind the answers has ended."""
        while tasks := self.engine.tasks:
            await asyncio.wait(tasks)

    def _count_reset(self) -> None:
        self.catalog_resets += 1

    # ---- the origin

    def object_keys(self, key: EntryKey, owner: str = "") -> list[str]:
        kind = self.kinds.of(key.namespace)
        return [kind.object_key(field, key, owner or key.id) for field in kind.fields]

    def upload(
        self, key: EntryKey, version: int, owner: str = "", last_modified_s: float | None = None
    ) -> None:
        """Upload the whole entry to the origin."""
        kind = self.kinds.of(key.namespace)
        for field in kind.fields:
            object_key = kind.object_key(field, key, owner or key.id)
            self.origin.hold(object_key, member_of(field, version), last_modified_s)

    def sets_read(self, key: EntryKey, owner: str = "") -> int:
        return self.origin.sets_read(self.object_keys(key, owner)[0])

    # ---- calls

    def request(self, key: EntryKey, owner: str | None = None, **more: Any) -> ReadRequest:
        """Return a request for an entry; its owner is the key's id unless another is named."""
        kind = self.kinds.of(key.namespace)
        return ReadRequest(key, kind, key.id if owner is None else owner, **more)

    async def get(self, key: EntryKey, owner: str | None = None, **more: Any) -> Served:
        return await self.cache.get(self.request(key, owner, **more))

    async def version(self, key: EntryKey, owner: str | None = None, **more: Any) -> int:
        """Get the entry; check that it is of one version, and return that version."""
        return version_of((await self.get(key, owner, **more)).blob.view())

    async def put(self, key: EntryKey, version: int, **more: Any) -> Served:
        async with self.receive(key, **more) as upload:
            upload.append(blob_of(self.kinds.of(key.namespace), version))
            return await self.cache.store_put(upload)

    @asynccontextmanager
    async def receive(self, key: EntryKey, **more: Any) -> AsyncIterator[Any]:
        header = PutHeader(key, self.kinds.of(key.namespace), more.pop("owner", key.id), **more)
        async with self.cache.receive_put(header) as upload:
            yield upload

    def files(self) -> list[Path]:
        """Return L2's entry files."""
        return [path for path in entry_files(self.root) if path.suffix == ".safetensors"]
