"""One simulated host: the real engine and tiers on a virtual loop, an origin, and its callers.

A run has a few lives. Between them the daemon is killed at a seeded moment: L2's files
and rows stay as they were at that moment, and all else is lost.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from cachesvc.core.entry import GenerationSource
from cachesvc.core.keys import EntryKey
from cachesvc.core.lru import NamespaceLimits
from cachesvc.core.watermarks import Watermarks
from cachesvc.engine.cache import Cache
from cachesvc.engine.litter import LitterSweeper
from cachesvc.engine.state import Limits, State
from cachesvc.metrics import Metrics
from cachesvc.tiers.catalog import Catalog
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.disk_files import BLOCK_BYTES, Location
from cachesvc.tiers.memory import MemoryTier
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
from tests.support.engine_house import LIMITS

GRACE_NS = 1_000_000
# The breaker is left out of what is simulated: what it refuses is nobody's schedule.
NEVER = 1 << 30


@dataclass(frozen=True, slots=True)
class Host:
    """What differs from seed to seed and stays for all lives of a run."""

    l2_blocks: int
    limits: Limits
    l1_bytes: int = 1 << 16

    @classmethod
    def drawn(cls, choose: random.Random) -> Host:
        limits = replace(
            LIMITS,
            breaker_failures=NEVER,
            fill_deadline_s=choose.choice((0.2, 5.0)),
            origin_after_grace_ns=GRACE_NS,
            max_concurrent_fills=choose.choice((1, 8)),
        )
        # In an L1 of one byte nothing fits: what L2 does not take either is refused.
        return cls(choose.choice((2, 4, 100)), limits, choose.choice((1 << 16, 1 << 16, 1)))


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
        self.clock = LoopClock(loop, wall_off_ns)
        origin.clock = self.clock
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
        self.disk = DiskTier(
            self.files,
            self.catalog,
            Watermarks(max(BLOCK_BYTES, blocks * 3 // 4), blocks, blocks),
            on_removal=lambda row, cause: None,
            keep_expired_ns=3_000_000_000,
        )
        namespaces = {
            name: NamespaceLimits(KINDS.of(name).max_entries) for name in KINDS.namespaces
        }
        self.memory = MemoryTier(
            folder / "l1", namespaces, host.l1_bytes, on_removal=lambda entry, cause: None
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
        self.cache = Cache(self.state, origin, PlainCodec())

    def kill(self) -> None:
        """End it where it stands. Only what the kernel would do for the dead is done."""
        self.loop.abandon()
        self.disk.close()
        self.memory.close()
        self.workers.shutdown()

    async def sweep_litter(self) -> None:
        await LitterSweeper(self.state).run()

    async def settle(self) -> None:
        """Return once nothing goes on behind the answers."""
        while tasks := self.state.tasks:
            await asyncio.wait(tasks)

    # ---- what must be so once everything is quiet

    def leftovers(self, *, had_full_disk: bool) -> list[str]:
        """Return what a quiet engine still holds and should not."""
        found = [f"{count} {what}" for what, count in self.held_counts().items()]
        files = self.l2_files()
        rows = {Location(row.meta.key, row.meta.generation) for row in self.catalog.hottest(1000)}
        # Where the catalog could not be written a removal unlinks the file: the row stays, a miss.
        if files - rows or (rows - files and not had_full_disk):
            found.append(f"files without a row {files - rows}, rows without a file {rows - files}")
        if self.disk.occupied_bytes != len(rows) * BLOCK_BYTES:
            found.append(f"{self.disk.occupied_bytes} bytes accounted for {len(rows)} rows")
        if unfinished := self.files.unfinished():
            found.append(f"unfinished files {unfinished}")
        return found

    def held_counts(self) -> dict[str, int]:
        """Return what of work under way is there; empty in a quiet engine."""
        state = self.state
        counts = {
            "flights": len(state.flights),
            "tombstones": len(state.tombstones),
            "Puts that replace": len(state.replacing),
            "pending commit bytes": state.pending_commit_bytes,
            "removals that are retried": self.cache.unfinished_removals,
            "reserved bytes of L1": self.memory._reserved_bytes,
            "reserved bytes of L2": self.disk._reserved_bytes,
            "files that await a row": len(self.disk._awaiting_row),
        }
        return {what: count for what, count in counts.items() if count}

    def l2_files(self) -> set[Location]:
        walks = (self.files.walk(namespace) for namespace in KINDS.namespaces)
        return {at for at in itertools.chain(*walks) if at is not None}


def _refuse_reset() -> None:
    raise AssertionError("the catalog was set aside")


KEYS = (EntryKey("upper", "ann"), EntryKey("lower", "ann"), EntryKey("garment", "coat"))


def owners_of(key: EntryKey) -> tuple[str, ...]:
    return (key.id,) if key.namespace != "garment" else ("ann", "bob")


def new_origin(
    history: History, choose: random.Random, keys: tuple[EntryKey, ...] = KEYS
) -> TellingOrigin:
    origin = TellingOrigin(history, choose)
    for key in keys:
        for owner in owners_of(key):
            origin.know(key, owner)
    return origin
