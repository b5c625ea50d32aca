"""What the parts of the engine share: the tiers, the flights, and the tombstones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, TypeVarTuple

import structlog

from cachesvc.core.clock import NS_PER_S, ClockWatch, Now
from cachesvc.core.entry import GenerationSource, Row
from cachesvc.core.errors import MemoryFull, NotDurable
from cachesvc.core.events import RecentEvents
from cachesvc.core.freshness import ANY_AGE, Need
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kind, Kinds
from cachesvc.core.problems import Problems
from cachesvc.core.pseudonyms import Pseudonyms
from cachesvc.core.scopes import Scope, Tombstones
from cachesvc.core.verdict import Ask, Use, use_of
from cachesvc.engine.absences import Absences
from cachesvc.engine.flight import FlightTable
from cachesvc.engine.uses import UseLog
from cachesvc.metrics import Metrics
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.memory import MemoryTier
from cachesvc.tiers.rooms import Room

log = structlog.get_logger()
# Why changes may be unknown, as a refused Put says it.
WAS_KILLED = "the daemon before this one was killed, and may have lost changes"
CATALOG_WAS_LOST = "the catalog was lost then"
CLOCK_WAS_BEHIND = "this host's clock was behind until then"
T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ReadsTime(Protocol):
    def read(self) -> Now: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one engine takes on at once; see docs/configuration.md."""

    max_entry_bytes: int
    max_flights: int
    max_concurrent_fills: int
    max_concurrent_warmups: int
    max_warm_keys: int
    max_concurrent_puts: int
    max_pending_bytes: int
    max_decoding_bytes: int
    fill_deadline_s: float
    origin_after_grace_ns: int
    breaker_failures: int
    breaker_open_s: float


@dataclass(slots=True)
class State:
    """One engine's shared state. Only the event loop touches it."""

    kinds: Kinds
    clock: ReadsTime
    memory: MemoryTier
    disk: DiskTier
    metrics: Metrics
    limits: Limits
    generations: GenerationSource
    # Decoding, hashing and tmpfs writes: work for all cores, off the loop.
    workers: ThreadPoolExecutor
    flights: FlightTable = field(default_factory=FlightTable)
    tombstones: Tombstones = field(default_factory=Tombstones)
    uses: UseLog = field(default_factory=UseLog)
    events: RecentEvents = field(default_factory=RecentEvents)
    # What keeps the daemon from being ready.
    problems: Problems = field(default_factory=Problems)
    # Keys whose tombstone is a Put's: the key is about to have an entry again.
    replacing: set[EntryKey] = field(default_factory=set)
    absences: Absences = field(default_factory=Absences)
    # What the log says in place of ids.
    pseudonyms: Pseudonyms = field(default_factory=Pseudonyms)
    # Steady time before which no change is acknowledged: workers may still trust the
    # heartbeat of a dead daemon whose page could not be marked closed.
    acknowledge_from_ns: int = 0
    # Wall time from which every change is known: a full disk may have kept a dead daemon's
    # changes out of the catalog.
    changes_known_from_ns: int = 0
    # Why changes from before that time may be unknown.
    unknown_because: str = ""
    watch: ClockWatch = field(default_factory=ClockWatch)
    # Stored times may be later than now: after a start, and after the clock was set.
    owes_lowering: bool = True
    pending_commit_bytes: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _waiting_for_lift: set[asyncio.Future[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run `work` in a task that the engine owns: no caller's cancellation reaches it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def outliving_its_caller(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Run `work` to its end, and return its result to a caller that is still there."""
        task = self.spawn(work, name)
        # Otherwise asyncio logs a failure as unhandled if the caller has left.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return await asyncio.shield(task)

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks under way; a task may have no caller that waits for it."""
        return set(self._tasks)

    async def in_worker(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a blocking call in the workers' pool."""
        return await asyncio.get_running_loop().run_in_executor(self.workers, call, *args)

    async def write_to_memory(self, room: Room, write: Callable[[], Awaitable[None]]) -> None:
        """Run `write`, which fills `room`; if it raises MemoryFull, make room and run it again."""
        try:
            await write()
        except MemoryFull:
            self.memory.make_room(room)
            await write()

    # ---- a clock that is set

    def read_time(self) -> Now:
        """Read the clock, and notice whether it was set since the last call."""
        now = self.clock.read()
        step_ns = self.watch.step_ns(now)
        if step_ns > 0:
            # No source can be compared with changes recorded while the clock was behind.
            self.know_changes_from(now.wall_ns, CLOCK_WAS_BEHIND)
        elif step_ns < 0:
            self.changes_known_from_ns = min(self.changes_known_from_ns, now.wall_ns)
        if step_ns:
            log.warning("clock_was_set", by_s=round(step_ns / NS_PER_S, 3))
            self.owe_lowering()
        return now

    def know_changes_from(self, wall_ns: int, because: str) -> None:
        """Refuse sources older than `wall_ns`: earlier changes are lost, or their times wrong."""
        self.changes_known_from_ns = wall_ns
        self.unknown_because = because
        self.owe_lowering()  # which records the time in the catalog

    def owe_lowering(self) -> None:
        """Have upkeep look for times later than now in all that is stored."""
        self.owes_lowering = True

    async def lower_changes(self) -> None:
        """Lower the times of changes later than now to now, durably. Raises NotDurable."""
        now = self.read_time()
        self.owe_lowering()  # upkeep lowers the rest
        self.tombstones.lower(now.wall_ns)
        await self.disk.later_times.lower_changes(now, self.changes_known_from_ns)

    async def lower_times(self) -> None:
        """Lower all stored times later than now; if that fails, it stays owed."""
        now = self.read_time()
        self.owes_lowering = False
        self.tombstones.lower(now.wall_ns)
        self.memory.lower_times(now.wall_ns)
        try:
            await self.disk.later_times.lower_all(now, self.changes_known_from_ns)
        except BaseException:  # also if cancelled: upkeep has to try again
            self.owe_lowering()
            raise

    # ---- judging

    def ask(self, need: Need, owner: str = "") -> Ask:
        """Return what a call asks. `owner` is whose prefix the origin would be asked for."""
        return Ask(need, self.limits.origin_after_grace_ns, owner)

    def use_of(self, row: Row, kind: Kind, need: Need = ANY_AGE, owner: str = "") -> Use:
        """Return what a row is good for now. See core/verdict.py."""
        return use_of(
            row,
            kind,
            self.ask(need, owner),
            self.clock.read().steady_ns,
            invalidation_pending=self.tombstones.covers(row.meta.key, row.meta.owner),
        )

    def check_nothing_owed(self, scope: Scope) -> None:
        """Raise NotDurable while a file that `scope` covers could not be unlinked from L1.

        Local hits are suspended, and the daemon does not serve it. But its link count still
        says that it is valid, so the change is not acknowledged.
        """
        if self.memory.owes(scope):
            raise NotDurable(
                "a file of the removed entry stays in L1, so local hits are suspended; "
                "the daemon tries again to unlink it"
            )

    async def wait_for_succession(self) -> None:
        """Return once no worker can trust a dead predecessor's heartbeat any more."""
        left_ns = self.acknowledge_from_ns - self.clock.read().steady_ns
        if left_ns > 0:
            await asyncio.sleep(left_ns / NS_PER_S)

    # ---- tombstones

    def lift(self, tombstone: int, scope: Scope) -> None:
        """Lift a tombstone: L2 may be asked again.

        A flight that read its row before the change was durable may be about to promote it,
        so it is fenced in this same function.
        """
        self.tombstones.lift(tombstone)
        self.flights.fence(scope, only_from_disk=True)
        for future in self._waiting_for_lift:
            if not future.done():
                future.set_result(None)
        self._waiting_for_lift.clear()

    async def wait_until_clear(self, key: EntryKey, owner: str) -> None:
        """Return once no tombstone covers `key`."""
        while self.tombstones.covers(key, owner):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_for_lift.add(future)
            try:
                await future
            finally:
                self._waiting_for_lift.discard(future)
