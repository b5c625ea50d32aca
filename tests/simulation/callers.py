"""What goes on around one simulated daemon: callers, uploads, outages, a full disk, a set clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import (
    CacheError,
    CorruptEntry,
    Draining,
    NoSuchObject,
    OriginError,
    StaleFill,
)
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.engine.flight import Served
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.put import PutHeader
from tests.simulation.circuit import NEVER, REFUSED
from tests.simulation.history import Call, History, Source
from tests.simulation.parts import KINDS, TellingOrigin, Trouble, blob_of, moments_of
from tests.simulation.world import KEYS, MORE_KEYS, Life, owners_of

# Mostly short, so that calls meet; sometimes about as long as a TTL.
PAUSES_S = (0.0, 0.0, 1e-3, 1e-3, 1e-2, 0.1, 2.5)
# In some lives entries expire, so that outages meet them.
LONG_PAUSES_S = (1e-3, 0.1, 2.5)
LEAVES = 0.1
EVENTS = ("delete", "catalog", "disk", "wait", *("upload",) * 5)
# No daemon shuts down while calls are under way, and the other two stay in the engine.
UNEXPECTED = (Draining, StaleFill, CorruptEntry)
# Which keys all calls of a life are about. A circuit opens for failures of several.
FEW = (KEYS[:1], KEYS[2:], KEYS)
MANY = (KEYS[1:], KEYS, MORE_KEYS, MORE_KEYS)
MAX_OUTAGES = 2
OUTAGES_S = (0.1, 1.0, 4.0)
# By how much a clock is set, forward or back.
CLOCK_STEPS_S = (3, 90, 5 * 3600, 3 * 24 * 3600, 365 * 24 * 3600)


def clock_step_ns(choose: random.Random) -> int:
    return choose.choice(CLOCK_STEPS_S) * choose.choice((-1, 1)) * NS_PER_S


class Callers:
    """Everything that happens to one life. The seed makes every choice."""

    def __init__(
        self, life: Life, history: History, origin: TellingOrigin, choose: random.Random
    ) -> None:
        self._life = life
        self._history = history
        self._origin = origin
        self._choose = choose
        has_breaker = life.host.limits.breaker_failures < NEVER
        self._keys = choose.choice(MANY if has_breaker else FEW)
        has_long_pauses = has_breaker and choose.random() < 0.3
        self._pauses_s = LONG_PAUSES_S if has_long_pauses else PAUSES_S
        # Gets without an owner, which only a cached entry answers.
        self._has_ownerless = choose.random() < 0.3
        # On some hosts the disk is often full, on others the clock often jumps.
        self._events = EVENTS + choose.choice(((), ("disk",) * 10, ("clock",) * 5))
        self.leaves = LEAVES
        self.unexpected: list[str] = []

    async def run(self, callers: int, calls: int) -> None:
        """Make all calls and events; return when all calls are answered."""
        tasks = [asyncio.create_task(self._repeat(self._call, calls)) for _ in range(callers)]
        behind = [
            asyncio.create_task(self._repeat(self._change_world, calls)),
            asyncio.create_task(self._suffer_outages()),
            asyncio.create_task(self._life.sweep_litter()),
            asyncio.create_task(self._repeat(self._upkeep, 3)),
        ]
        await asyncio.gather(*tasks, *behind)
        self._life.writes.failing = self._life.files.is_full = False

    async def _repeat(self, do: Callable[[], Awaitable[None]], times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(self._choose.choice(self._pauses_s) * self._choose.random())
            await do()

    async def _upkeep(self) -> None:
        try:
            await self._life.cache.upkeep.memory_step()
            await self._life.cache.upkeep.disk_step()
        except CacheError:
            pass  # the daemon's loop logs it and tries again

    # ---- the world

    async def _change_world(self) -> None:
        key, owner = self._draw()
        kind = KINDS.of(key.namespace)
        object_keys = [kind.object_key(member, key, owner) for member in kind.fields]
        match self._choose.choice(self._events):
            case "delete":
                self._origin.delete(self._choose.choice(object_keys))
            case "catalog":
                self._life.writes.failing = not self._life.writes.failing
            case "disk":
                self._life.files.is_full = not self._life.files.is_full
            case "clock":
                self._life.clock.wall_off_ns += clock_step_ns(self._choose)
            case "wait":
                await asyncio.sleep(self._choose.random() * 3)
            case _:
                for object_key in object_keys:
                    self._origin.upload(object_key)
                    await asyncio.sleep(self._choose.choice((0.0, 1e-4, 1e-2)))

    async def _suffer_outages(self) -> None:
        """Begin outages and end them. The first may have begun in the life before this one."""
        origin, choose = self._origin, self._choose
        for _ in range(choose.randint(0, MAX_OUTAGES) + bool(origin.troubles)):
            if not origin.troubles:
                await asyncio.sleep(choose.choice(self._pauses_s) * choose.random())
                origin.troubles = self._drawn_outage()
            await asyncio.sleep(choose.choice(OUTAGES_S) * choose.random())
            origin.troubles = {}

    def _drawn_outage(self) -> dict[EntryKey, Trouble]:
        """Return an outage: one trouble for all entries, or one for each of some entries."""
        choose = self._choose
        if choose.random() < 0.5:
            return dict.fromkeys(MORE_KEYS, choose.choice((Trouble.AWAY, Trouble.AWAY, *Trouble)))
        bad = choose.sample(self._keys, choose.randint(1, len(self._keys)))
        return {key: choose.choice(list(Trouble)) for key in bad}

    def _draw(self) -> tuple[EntryKey, str]:
        key = self._choose.choice(self._keys)
        return key, self._choose.choice(owners_of(key))

    # ---- calls

    async def _call(self) -> None:
        key, owner = self._draw()
        match self._choose.randrange(10):
            case 0 | 1:
                await self._put(key, owner)
            case 2 | 3:
                await self._invalidate(key, owner)
            case _:
                await self._get(key, owner)

    async def _answered(self, call: Call, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for the answer, or leave early; record how the call ended."""
        task = asyncio.create_task(work)
        patience_s = None
        if self._choose.random() < self.leaves:
            patience_s = self._life.loop.delay_s()
        try:
            async with asyncio.timeout(patience_s):
                answer = await task
        except TimeoutError:
            return None  # the caller left; the call may still take effect
        except CacheError as exc:
            call.ended = self._history.moment()
            call.error = exc.reason
            refused_a_change = exc.reason == REFUSED and call.kind != "get"
            if isinstance(exc, UNEXPECTED) or type(exc) is CacheError or refused_a_change:
                self.unexpected.append(f"{call.kind}: {exc!r}")
            call.found_absent = isinstance(exc, NoSuchObject) and exc.reason == "NO_SUCH_OBJECT"
            return None
        except Exception as exc:  # noqa: BLE001 no other error may reach a caller
            self.unexpected.append(f"{call.kind}: {exc!r}")
            return None
        call.ended = self._history.moment()
        call.is_done = True
        return answer

    async def _get(self, key: EntryKey, owner: str) -> None:
        choose, needed_ns = self._choose, 0
        if choose.random() < 0.2:
            needed_ns = self._life.clock.true_ns - int(choose.random() * 1e8)
        if self._has_ownerless and choose.random() < 0.2:
            owner = ""
        request = ReadRequest(
            key,
            KINDS.of(key.namespace),
            owner,
            origin_after_ns=needed_ns,
            # Only a call without `origin_after`, such as a warm-up's, leaves L1 unfilled.
            to_memory=bool(needed_ns) or choose.random() < 0.8,
        )
        await self.served(request)

    async def served(self, request: ReadRequest) -> bool:
        """Run a Get; record what it was served, or whether L2 held the entry when it failed."""
        owner, needed_ns = request.owner, request.origin_after_ns
        call = self._history.begin("get", request.key, owner=owner, needed_ns=needed_ns)
        arrived_ns = self._life.clock.read().wall_ns
        served: Served | None = await self._answered(call, self._ask(call, request))
        if served is not None:
            call.source = self._source_of(served)
            call.shown_ns = max(arrived_ns, self._life.clock.read().wall_ns)
            call.is_stale = served.is_stale
            call.is_kept = served.expires_ns > served.meta.confirmed_ns
        return served is not None

    async def _ask(self, call: Call, request: ReadRequest) -> Served:
        """Run a Get. No other task runs between the look-up in L2 and the Get's first step."""
        life = self._life
        began_ns = life.clock.true_ns
        is_first = not life.state.flights.is_filling(request.key)
        held = life.servable_generation(request) if is_first else None
        try:
            served = await life.cache.get(request)
        except OriginError:
            call.was_held = held is not None and held == life.servable_generation(request)
            raise
        if served.is_stale:
            self.unexpected += life.objections_to_stale(served, began_ns)
        return served

    def _source_of(self, served: Served) -> Source:
        """Return the source that the answer's bytes name: the earliest read of a member."""
        sources = [self._history.sources[moment] for moment in moments_of(served.blob.view())]
        assert len({(source.key, source.owner) for source in sources}) == 1
        return min(sources, key=lambda source: source.moment)

    async def _put(self, key: EntryKey, owner: str) -> None:
        choose = self._choose
        source = as_of_ns = None
        if choose.random() < 0.5:
            source = self._read_photo(key, owner, named=True)
            as_of_ns = source.changed_ns
            await asyncio.sleep(choose.choice((1e-4, 1e-2, 0.1)) * choose.random() + 1e-6)
        ttl_s = choose.choice((None, 1.0, 60.0))
        header = PutHeader(key, KINDS.of(key.namespace), owner, as_of_ns, ttl_s)
        call = self._history.begin("put", key, owner=owner, source=source)
        await self._answered(call, self._upload(header, call))

    async def put_named(self, key: EntryKey, owner: str, ttl_s: float | None = None) -> bool:
        """Put what is read now, and return whether it was stored."""
        source = self._read_photo(key, owner, named=True)
        header = PutHeader(key, KINDS.of(key.namespace), owner, source.changed_ns, ttl_s)
        call = self._history.begin("put", key, owner=owner, source=source)
        return await self._answered(call, self._upload(header, call)) is not None

    def _read_photo(self, key: EntryKey, owner: str, *, named: bool) -> Source:
        clock = self._life.clock
        wall_ns, true_ns = clock.read().wall_ns, clock.true_ns
        return self._history.add_source(
            key, owner, changed_ns=wall_ns, true_ns=true_ns, is_put=True, named=named
        )

    async def _upload(self, header: PutHeader, call: Call) -> Served:
        cache = self._life.cache
        async with cache.receive_put(header) as upload:
            if call.source is None:  # without `as_of` the Put's arrival counts
                call.source = self._read_photo(header.key, header.owner, named=False)
            # The clock may have been set forward and back again since the photo was read.
            call.source = self._history.arrived(call.source, upload.arrival.wall_ns)
            await asyncio.sleep(self._life.loop.delay_s())
            upload.append(blob_of(header.kind, call.source.moment))
            return await cache.store_put(upload)

    async def _invalidate(self, key: EntryKey, owner: str) -> None:
        scope = self._choose.choice(
            (
                key_scope(key),
                subject_scope(Subject.USER, "ann", KINDS),
                subject_scope(Subject.CLOTHING, "coat", KINDS),
                Scope(ScopeKind.OWNER, owner),
                Scope(ScopeKind.NAMESPACE, key.namespace),
                Scope(ScopeKind.EVERYTHING),
            )
        )
        await self.invalidate(scope, erase=self._choose.random() < 0.1)

    async def invalidate(self, scope: Scope, *, erase: bool = False) -> bool:
        """Invalidate `scope`, and return whether that was acknowledged."""
        call = self._history.begin("invalidate", scope=scope)
        await self._answered(call, self._life.cache.invalidate(scope, erase=erase))
        return call.is_done
