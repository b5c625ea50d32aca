"""One simulated host: the real engine and tiers on a virtual loop, an origin, and its callers.

A run has up to three lives. Between them the daemon is killed at a moment that the seed
chooses: L2's files and rows stay as they are, and everything else is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import GenerationSource, Row
from cachesvc.core.errors import CorruptEntry
from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import NamespaceLimits
from cachesvc.core.ttl import STEPS
from cachesvc.core.verdict import Use
from cachesvc.core.watermarks import Watermarks
from cachesvc.engine.cache import Cache
from cachesvc.engine.flight import Served
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.state import Limits, State
from cachesvc.engine.upkeep import LitterSweeper
from cachesvc.metrics import Metrics
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.disk import DiskTier, Written
from cachesvc.tiers.disk_files import BLOCK_BYTES, Location
from cachesvc.tiers.memory import MemoryTier
from tests.simulation.circuit import NEVER, WatchedBreaker
from tests.simulation.history import History
from tests.simulation.parts import (
    KINDS,
    FillableFiles,
    LoopClock,
    PlainCodec,
    ScheduledWrites,
    TellingOrigin,
)
from tests.simulation.scheduler import VirtualLoop
from tests.support.engine.house import LIMITS

GRACE_NS = 1_000_000
# How long a flight may take from its failure at the origin to a stale answer.
STALE_DELAY_NS = 2 * NS_PER_S
KEEP_EXPIRED_NS = 3_000_000_000
DAY_NS = 24 * 3600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Host:
    """What the seed chooses for all lives of a run."""

    l2_blocks: int
    limits: Limits
    l1_bytes: int = 1 << 16
    # When each generation was stored, or last confirmed at the origin, by the true clock.
    stored_ns: dict[int, int] = field(default_factory=dict)
    # By how much the clock was set forward before a start, if the daemon cannot notice it.
    believed_ns: list[int] = field(default_factory=list)
    # Of each life that has ended, how many writes the catalog refused.
    refused_writes: list[int] = field(default_factory=list)

    @classmethod
    def drawn(cls, choose: random.Random) -> Host:
        limits = replace(
            LIMITS,
            breaker_failures=choose.choice((2, 2, 2, 3, 4, NEVER, NEVER, NEVER, NEVER)),
            breaker_open_s=choose.choice((0.05, 0.5)),
            fill_deadline_s=choose.choice((0.2, 5.0)),
            origin_after_grace_ns=GRACE_NS,
            max_concurrent_fills=choose.choice((1, 8)),
        )
        # Nothing fits into an L1 of one byte, so an entry that L2 has no room for is refused.
        return cls(choose.choice((2, 4, 100)), limits, choose.choice((1 << 16, 1 << 16, 1)))


class WatchedDisk(DiskTier):
    """The real L2. It calls `on_stored` with each generation that is stored or confirmed."""

    on_stored: Callable[[int], None]

    def commit(self, written: Written, accesses: int, steady_ns: int) -> asyncio.Task[None]:
        self.on_stored(written.meta.generation)
        return super().commit(written, accesses, steady_ns)

    async def confirm(self, row: Row) -> None:
        self.on_stored(row.meta.generation)
        await super().confirm(row)


class Life:
    """One daemon from its start to its end."""

    def __init__(
        self,
        folder: Path,
        host: Host,
        origin: TellingOrigin,
        loop: VirtualLoop,
        choose: random.Random,
        wall_off_ns: int = 0,
    ) -> None:
        self.loop = loop
        self.host = host
        self._stored_ns = host.stored_ns
        # Entries that left by their age, and their greatest possible age by the true clock.
        self.expired: list[tuple[EntryKey, int]] = []
        self.clock = LoopClock(loop, wall_off_ns)
        origin.clock = self.clock
        self._began_ns = self.clock.true_ns
        self.files = FillableFiles(folder / "l2", KINDS.namespaces)
        self.catalog = Catalog(
            folder,
            on_reset=_refuse_reset,
            make_queue=lambda run: ScheduledWrites(run, loop, choose),
            read_time=self.clock.read,
        )
        writes = self.catalog._writes
        assert isinstance(writes, ScheduledWrites)
        self.writes = writes
        blocks = host.l2_blocks * BLOCK_BYTES
        self.disk = WatchedDisk(
            self.files,
            self.catalog,
            Watermarks(max(BLOCK_BYTES, blocks * 3 // 4), blocks, blocks),
            on_leaving=self._note_leaving,
            keep_expired_ns=KEEP_EXPIRED_NS,
        )
        self.disk.on_stored = self._note_stored
        namespaces = {
            name: NamespaceLimits(KINDS.of(name).max_entries) for name in KINDS.namespaces
        }
        self.memory = MemoryTier(
            folder / "l1", namespaces, host.l1_bytes, on_leaving=lambda entry, cause: None
        )
        self.workers = ThreadPoolExecutor(1)
        self.state = State(
            kinds=KINDS,
            clock=self.clock,
            memory=self.memory,
            disk=self.disk,
            metrics=Metrics("simulation"),
            limits=host.limits,
            generations=GenerationSource(self.disk.last_generation),
            workers=self.workers,
        )
        if self.files.was_used:
            self.state.changes_known_from_ns = self.clock.read().wall_ns
        gap_ns = self.clock.read().wall_ns - self.disk.last_write_ns
        # The clock cannot be right at both times: the last write is too far from this start.
        self.began_astray = bool(self.disk.last_write_ns) and abs(gap_ns) > DAY_NS
        if self.disk.last_write_ns and 0 < gap_ns <= DAY_NS:
            host.believed_ns.append(gap_ns)
        self._believed_ns = sum(host.believed_ns)
        self.cache = Cache(self.state, origin, PlainCodec())
        filler = self.cache._filler
        self.breaker = WatchedBreaker(filler.breaker, host.limits, filler._steady_ns)
        filler.breaker = self.breaker  # type: ignore[assignment]

    def _note_leaving(self, row: Row, cause: Leaving) -> None:
        if cause is Leaving.EXPIRED:
            age_ns = self.clock.true_ns - self._stored_ns[row.meta.generation] + self._believed_ns
            self.expired.append((row.meta.key, age_ns))

    def _note_stored(self, generation: int) -> None:
        self._stored_ns[generation] = self.clock.true_ns

    def servable_generation(self, request: ReadRequest) -> int | None:
        """Return the entry of L2 that answers a Get; None if there is none, or it is unknown."""
        row = None
        try:
            row = self.catalog.lookup(request.key)
        except CorruptEntry:
            # A refused invalidation unlinks the files, and its change is recorded later: the rows
            # stay until the tier looks them up.
            if not self.writes.failed + sum(self.host.refused_writes):
                raise
        if row is None or request.origin_after_ns:  # a clock that is set changes what is new enough
            return None
        if Use.SERVE not in self.state.use_of(row, request.kind):
            return None
        location = Location(request.key, row.meta.generation)
        return row.meta.generation if location in self.l2_files() else None

    def objections_to_stale(self, served: Served, began_ns: int) -> list[str]:
        """Return why an expired entry may not answer a Get that began at `began_ns` (true)."""
        key, kind = served.meta.key, KINDS.of(served.meta.key.namespace)
        found = []
        if kind.private or not kind.stale_if_error_s:
            found.append(f"{key} was served stale, which its kind forbids")
        # The flight may have begun before the call that joined it.
        if self.breaker.in_vain_ns.get(key, 0) < self.clock.steady_at(began_ns) - STALE_DELAY_NS:
            found.append(f"{key} was served stale, and no fill of it could not ask the origin")
        stored_ns = self._stored_ns[served.meta.generation]
        ttl_s = served.meta.explicit_ttl_s or STEPS[0][1] * kind.ttl_s
        most_ns = int((ttl_s + kind.stale_if_error_s) * NS_PER_S) + STALE_DELAY_NS
        # The steady clock of an earlier life may have been another one.
        if stored_ns >= self._began_ns and self.clock.true_ns - stored_ns > most_ns:
            found.append(f"{key} was served stale for longer than its kind allows")
        return found

    def kill(self) -> None:
        """End the daemon as kill -9 does; only what the kernel does for a dead process follows."""
        self.loop.abandon()
        self.disk.close()
        self.memory.close()
        self.workers.shutdown()

    async def sweep_litter(self) -> None:
        await LitterSweeper(self.state).run()

    async def settle(self) -> None:
        """Return once no work goes on behind the answers."""
        while tasks := self.state.tasks:
            await asyncio.wait(tasks)

    # ---- what must hold once the engine is quiet

    def leftovers(self, *, had_full_disk: bool) -> list[str]:
        """Return what a quiet engine still holds, but should have given up."""
        found = [f"{count} {what}" for what, count in self.held_counts().items()]
        files = self.l2_files()
        rows = {Location(row.meta.key, row.meta.generation) for row in self.catalog.hottest(1000)}
        # An invalidation that cannot write the catalog unlinks the file: the row stays, a miss.
        if files - rows or (rows - files and not had_full_disk):
            found.append(f"files without a row {files - rows}, rows without a file {rows - files}")
        if self.disk.room.occupied_bytes != len(rows) * BLOCK_BYTES:
            found.append(f"{self.disk.room.occupied_bytes} bytes accounted for {len(rows)} rows")
        if unfinished := self.files.unfinished():
            found.append(f"unfinished files {unfinished}")
        return found

    def held_counts(self) -> dict[str, int]:
        """Count what exists only while work is under way; empty in a quiet engine."""
        state = self.state
        counts = {
            "flights": len(state.flights),
            "tombstones": len(state.tombstones),
            "Puts that replace": len(state.replacing),
            "pending commit bytes": state.pending_commit_bytes,
            "invalidations that are retried": self.cache.levels().unfinished_invalidations,
            "reserved bytes of L1": self.memory._reserved_bytes,
            "reserved bytes of L2": self.disk.room.reserved_bytes,
            "files that await a row": len(self.disk.litter.awaiting_row),
        }
        return {what: count for what, count in counts.items() if count}

    def l2_files(self) -> set[Location]:
        walks = (self.files.walk(namespace) for namespace in KINDS.namespaces)
        return {at for at in itertools.chain(*walks) if at is not None}


def _refuse_reset() -> None:
    raise AssertionError("the catalog was set aside")


KEYS = (EntryKey("upper", "ann"), EntryKey("lower", "ann"), EntryKey("garment", "coat"))
# An outage that opens a circuit is about several entries.
MORE_KEYS = (*KEYS, EntryKey("upper", "bea"), EntryKey("garment", "hat"))


def owners_of(key: EntryKey) -> tuple[str, ...]:
    return (key.id,) if key.namespace != "garment" else ("ann", "bob")


def new_origin(history: History, choose: random.Random) -> TellingOrigin:
    origin = TellingOrigin(history, choose)
    for key in MORE_KEYS:
        for owner in owners_of(key):
            origin.know(key, owner)
    return origin
