"""Which calls must succeed once everything is quiet? Puts, Gets, and calls in one more outage.

These are the last calls of a run. The tiers and the origin work again, so each of them has to
succeed after a few attempts. The seed still chooses how long each step takes.
"""

from __future__ import annotations

import asyncio
import random

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope, ScopeKind
from cachesvc.engine.get import ReadRequest
from tests.simulation.callers import Callers
from tests.simulation.circuit import NEVER
from tests.simulation.parts import KINDS, TellingOrigin, Trouble
from tests.simulation.world import KEYS, MORE_KEYS, Life, owners_of

# A Put that notices that the clock was set is refused. In the next minute so is every Put whose
# source may be older than that.
PUT_ATTEMPTS = 3
PUT_PAUSE_S = 61.0
# On a host with a short deadline some fills are late. A late fill counts as a failure of the
# origin, so the next attempt comes after the circuit's pause.
GET_ATTEMPTS = 20
# The share of the runs with a breaker that end with an outage.
OUTAGES = 0.4
# An entry expires during the last outage, and may then be served stale, or it does not.
SHORT_TTL_S = 1.5
LONG_TTL_S = 3600.0


class LastCalls:
    """Made once, after the last life's callers have gone."""

    def __init__(
        self, callers: Callers, life: Life, origin: TellingOrigin, choose: random.Random
    ) -> None:
        callers.leaves = 0.0
        self._callers = callers
        self._life = life
        self._origin = origin
        self._choose = choose
        self._open_s = life.state.limits.breaker_open_s

    async def problems(self) -> list[str]:
        """Return what cannot be done."""
        found = await self._lost()
        has_breaker = self._life.host.limits.breaker_failures < NEVER
        if has_breaker and self._choose.random() < OUTAGES:
            found += await self._lost_by_an_outage()
        return found

    async def _lost(self) -> list[str]:
        """Return whether some key cannot be put or served again."""
        key = self._choose.choice(KEYS)
        owner = self._choose.choice(owners_of(key))
        found = [] if await self._put(key, owner) else [f"{key} of {owner} is not put"]
        changed_ns = self._life.clock.true_ns
        self._upload(key, owner)
        is_served = await self._is_served(key, owner, changed_ns)
        return found if is_served else [*found, f"{key} is not served"]

    async def _lost_by_an_outage(self) -> list[str]:
        """Return what fails, other than fills, in an outage that opens the circuit, or after it."""
        kept, *others = self._choose.sample(MORE_KEYS, len(MORE_KEYS))
        everything = Scope(ScopeKind.EVERYTHING)
        found = []
        if not await self._callers.invalidate(everything):
            found.append("nothing can be invalidated before an outage")
        ttl_s = self._choose.choice((SHORT_TTL_S, LONG_TTL_S))
        is_put = await self._put(kept, owners_of(kept)[0], ttl_s)
        self._origin.troubles = dict.fromkeys(MORE_KEYS, Trouble.AWAY)
        for key in others:
            await self._get(key, owners_of(key)[0])
        if is_put:
            found += await self._lost_to_hits(kept, ttl_s)
        if not await self._callers.invalidate(everything):
            found.append("nothing can be invalidated during an outage")
        return found + await self._lost_after_an_outage(kept, others[0])

    async def _lost_to_hits(self, key: EntryKey, ttl_s: float) -> list[str]:
        """Return which tier does not serve `key`, which was put; first L1, then L2 alone."""
        owner = owners_of(key)[0]
        found = []
        if ttl_s == LONG_TTL_S and not await self._get(key, owner):
            found.append(f"{key} is not served during an outage")
        self._life.memory.remove(key, Leaving.BYTES_LIMIT)
        if ttl_s == SHORT_TTL_S:
            await asyncio.sleep(SHORT_TTL_S)
        may_serve = ttl_s == LONG_TTL_S or KINDS.of(key.namespace).stale_if_error_s
        is_held = self._life.catalog.lookup(key) is not None
        if may_serve and is_held and not await self._get(key, owner):
            found.append(f"{key} is not served from L2 during an outage")
        return found

    async def _lost_after_an_outage(self, key: EntryKey, bad: EntryKey) -> list[str]:
        """End the outage, for all but `bad`, which somebody goes on asking for."""
        origin, owner = self._origin, owners_of(key)[0]
        origin.troubles = {bad: Trouble.AWAY}
        self._upload(key, owner)
        nagging = asyncio.create_task(self._nag(bad), name="nag")
        await asyncio.sleep(self._open_s)
        is_served = await self._is_served(key, owner)
        nagging.cancel()
        await asyncio.gather(nagging, return_exceptions=True)
        origin.troubles = {}
        await self._life.settle()
        return [] if is_served else [f"{key} is not served after an outage"]

    async def _nag(self, key: EntryKey) -> None:
        """Ask for `key` again and again."""
        while True:
            await self._get(key, owners_of(key)[0])
            await asyncio.sleep(self._open_s * self._choose.random())

    async def _is_served(self, key: EntryKey, owner: str, needed_ns: int = 0) -> bool:
        """Return whether one of a few attempts is served."""
        for _ in range(GET_ATTEMPTS):
            if await self._get(key, owner, needed_ns):
                return True
            await asyncio.sleep(self._open_s)
        return False

    async def _get(self, key: EntryKey, owner: str, needed_ns: int = 0) -> bool:
        request = ReadRequest(key, KINDS.of(key.namespace), owner, needed_ns)
        return await self._callers.served(request)

    async def _put(self, key: EntryKey, owner: str, ttl_s: float | None = None) -> bool:
        for _ in range(PUT_ATTEMPTS):
            if await self._callers.put_named(key, owner, ttl_s):
                return True
            await asyncio.sleep(PUT_PAUSE_S)
        return False

    def _upload(self, key: EntryKey, owner: str) -> None:
        for member in KINDS.of(key.namespace).fields:
            self._origin.upload(KINDS.of(key.namespace).object_key(member, key, owner))
