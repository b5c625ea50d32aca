"""What goes on around one simulated daemon: callers, uploads, an origin that fails, a full disk."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.errors import CacheError, CorruptEntry, Draining, NoSuchObject, StaleFill
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Subject
from cachesvc.core.scopes import Scope, ScopeKind, key_scope, subject_scope
from cachesvc.engine.flight import Served
from cachesvc.engine.get import ReadRequest
from cachesvc.engine.put import PutHeader
from tests.simulation.history import Call, History, Source
from tests.simulation.parts import KINDS, TellingOrigin, blob_of, moments_of
from tests.simulation.world import KEYS, Life, owners_of

# Mostly at once, so that things meet; now and then longer than a TTL.
PAUSES_S = (0.0, 0.0, 1e-3, 1e-3, 1e-2, 0.1, 2.5)
LEAVES = 0.1
EVENTS = ("delete", "origin", "catalog", "disk", "wait", *("upload",) * 5)
# Nobody shuts down while calls are under way, and these stay in the engine.
UNEXPECTED = (Draining, StaleFill, CorruptEntry)
# A Put that notices a clock that was set is refused; so are those of the next minute whose
# source may be from before that.
PUT_ATTEMPTS = 3
PUT_PAUSE_S = 61.0
# Some hosts have a short deadline, and all answers come from a slow world.
GET_ATTEMPTS = 20
# By how much a clock is set, either way.
CLOCK_STEPS_S = (3, 90, 5 * 3600, 3 * 24 * 3600, 365 * 24 * 3600)


def clock_step_ns(choose: random.Random) -> int:
    return choose.choice(CLOCK_STEPS_S) * choose.choice((-1, 1)) * NS_PER_S


class Callers:
    """All that happens to one life. Every choice is the seed's."""

    def __init__(
        self, life: Life, history: History, origin: TellingOrigin, choose: random.Random
    ) -> None:
        self._life = life
        self._history = history
        self._origin = origin
        self._choose = choose
        self._keys = choose.choice((KEYS[:1], KEYS[2:], KEYS))
        # Gets that name no owner, for what is cached only.
        self._has_ownerless = choose.random() < 0.3
        # Some hosts have a disk that is full again and again, some a clock that jumps.
        self._events = EVENTS + choose.choice(((), ("disk",) * 10, ("clock",) * 5))
        self._leaves = LEAVES
        self.unexpected: list[str] = []

    async def run(self, callers: int, calls: int) -> None:
        """Do everything, and return when all calls have been answered."""
        tasks = [asyncio.create_task(self._repeat(self._call, calls)) for _ in range(callers)]
        behind = [
            asyncio.create_task(self._repeat(self._change_world, calls)),
            asyncio.create_task(self._life.sweep_litter()),
            asyncio.create_task(self._repeat(self._upkeep, 3)),
        ]
        await asyncio.gather(*tasks, *behind)
        self._origin.failing = self._life.writes.failing = self._life.files.is_full = False

    async def _repeat(self, do: Callable[[], Awaitable[None]], times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(self._choose.choice(PAUSES_S) * self._choose.random())
            await do()

    async def _upkeep(self) -> None:
        try:
            await self._life.cache.upkeep.memory_step()
            await self._life.cache.upkeep.disk_step()
        except CacheError:
            pass  # the daemon's loop logs it, and comes again

    # ---- the world

    async def _change_world(self) -> None:
        key, owner = self._draw()
        kind = KINDS.of(key.namespace)
        object_keys = [kind.object_key(member, key, owner) for member in kind.fields]
        match self._choose.choice(self._events):
            case "delete":
                self._origin.delete(self._choose.choice(object_keys))
            case "origin":
                self._origin.failing = not self._origin.failing
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
        """Wait for the answer, or leave early; write down how it ended."""
        task = asyncio.create_task(work)
        patience_s = None
        if self._choose.random() < self._leaves:
            patience_s = self._life.loop.delay_s()
        try:
            async with asyncio.timeout(patience_s):
                answer = await task
        except TimeoutError:
            return None  # it left; what it asked for may still happen
        except CacheError as exc:
            call.ended = self._history.moment()
            call.error = exc.reason
            if isinstance(exc, UNEXPECTED) or type(exc) is CacheError:
                self.unexpected.append(f"{call.kind}: {exc!r}")
            call.found_absent = isinstance(exc, NoSuchObject) and exc.reason == "NO_SUCH_OBJECT"
            return None
        except Exception as exc:  # noqa: BLE001 nothing else may reach a caller
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
            # As a warm-up does, which names no time.
            to_memory=bool(needed_ns) or choose.random() < 0.8,
        )
        call = self._history.begin("get", key, owner=owner, needed_ns=needed_ns)
        await self._served(call, request)

    async def _served(self, call: Call, request: ReadRequest) -> bool:
        arrived_ns = self._life.clock.read().wall_ns
        served: Served | None = await self._answered(call, self._life.cache.get(request))
        if served is not None:
            call.source = self._source_of(served)
            call.shown_ns = max(arrived_ns, self._life.clock.read().wall_ns)
            call.is_kept = served.expires_ns > served.meta.confirmed_ns
        return served is not None

    def _source_of(self, served: Served) -> Source:
        """Return what an answer was made of: its earliest read, by its content alone."""
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

    def _read_photo(self, key: EntryKey, owner: str, *, named: bool) -> Source:
        clock = self._life.clock
        wall_ns, true_ns = clock.read().wall_ns, clock.true_ns
        return self._history.add_source(
            key, owner, changed_ns=wall_ns, true_ns=true_ns, is_put=True, named=named
        )

    async def _upload(self, header: PutHeader, call: Call) -> Served:
        cache = self._life.cache
        async with cache.receive_put(header) as upload:
            if call.source is None:  # its arrival counts
                call.source = self._read_photo(header.key, header.owner, named=False)
            # The host's clock may have been set forward, and back again, before anybody looked.
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
        call = self._history.begin("invalidate", scope=scope)
        erase = self._choose.random() < 0.1
        await self._answered(call, self._life.cache.invalidate(scope, erase=erase))

    # ---- once everything is quiet

    async def what_is_lost(self) -> list[str]:
        """Return whether some key cannot be put or served again, with an origin that works."""
        key = self._choose.choice(KEYS)
        return await self._lost(key, self._choose.choice(owners_of(key)))

    async def _lost(self, key: EntryKey, owner: str) -> list[str]:
        self._leaves, kind = 0.0, KINDS.of(key.namespace)
        found = [] if await self._put_again(key, owner) else [f"{key} of {owner} is not put"]
        changed_ns = self._life.clock.true_ns
        for member in kind.fields:
            self._origin.upload(kind.object_key(member, key, owner))
        request = ReadRequest(key, kind, owner, changed_ns)
        for _ in range(GET_ATTEMPTS):
            call = self._history.begin("get", key, owner=owner, needed_ns=changed_ns)
            if await self._served(call, request):
                return found
        return [*found, f"{key} is not served: {call.error}"]

    async def _put_again(self, key: EntryKey, owner: str) -> bool:
        for _ in range(PUT_ATTEMPTS):
            source = self._read_photo(key, owner, named=True)
            header = PutHeader(key, KINDS.of(key.namespace), owner, source.changed_ns)
            call = self._history.begin("put", key, owner=owner, source=source)
            if await self._answered(call, self._upload(header, call)) is not None:
                return True
            await asyncio.sleep(PUT_PAUSE_S)
        return False
