"""Answers a Get: from L1, otherwise with the flight that all callers of the key share."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

from cachesvc.core.clock import Now
from cachesvc.core.entry import more_accesses
from cachesvc.core.errors import Aborted, CacheError, NoSuchObject, Overloaded, StaleFill
from cachesvc.core.freshness import ANY_AGE, Need, need_of
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kind
from cachesvc.core.tier import Tier
from cachesvc.core.verdict import is_current, is_said_new_enough, is_stored_new_enough
from cachesvc.engine.flight import Flight, Served
from cachesvc.engine.flight_run import FlightRunner
from cachesvc.engine.state import State
from cachesvc.tiers.memory import MemoryEntry

# A call whose flights are fenced more often than this fails with Aborted.
MAX_FENCED = 5


class ReadRequest(NamedTuple):
    """`key` and `owner` are checked ids; `owner` empty = only what is cached.

    `origin_after_ns` (wall) 0 = any age. `to_memory` False = do not fill L1 for this.
    `may_ask_origin` False = only L2. `kind_version` is the model version that the caller
    can use, empty = any.
    """

    key: EntryKey
    kind: Kind
    owner: str
    origin_after_ns: int = 0
    to_memory: bool = True
    may_ask_origin: bool = True
    kind_version: str = ""


class Getter:
    """Serves entries. A hit is one plain function; a miss waits on a flight."""

    def __init__(self, state: State, runner: FlightRunner) -> None:
        self._state = state
        self._runner = runner

    async def get(self, request: ReadRequest) -> Served:
        """Return the entry.

        Raises:
            PreconditionFailed, NoSuchObject, Aborted, Overloaded and what a fill raises:
            see core/errors.py.
            If cancelled, the flight goes on for its other waiters.
        """
        metrics = self._state.metrics
        started = time.monotonic()
        try:
            served = await self._get(request)
        except NoSuchObject:
            metrics.unserved_requests.inc("not_found")
            raise
        except CacheError:
            metrics.unserved_requests.inc("failed")
            raise
        metrics.requests.inc(served.tier)
        metrics.request_seconds.observe(time.monotonic() - started, served.tier)
        return served

    async def fetch(self, request: ReadRequest) -> None:
        """Bring the entry to L1 without counting a request or a use. Raises as `get`."""
        found = self._lookup_or_join(request, ANY_AGE)
        if not isinstance(found, Served):
            _, future = found
            await future

    async def _get(self, request: ReadRequest) -> Served:
        request.kind.check_version(request.kind_version)
        arrival = self._state.clock.read()
        need = need_of(request.origin_after_ns, arrival.wall_ns)
        fenced = 0
        while True:
            found = self._lookup_or_join(request, need)
            if isinstance(found, Served):
                return found
            flight, future = found
            try:
                served = await future
            except StaleFill as exc:
                fenced += 1
                if fenced > MAX_FENCED:
                    raise Aborted(
                        "the key was invalidated again and again during its fill; retry",
                        reason="FILL_FENCED",
                    ) from exc
                continue
            except NoSuchObject:
                if need.named_ns and not self._asked_since(flight, arrival):
                    continue  # the flight asked the origin before this call came
                raise
            if self._meets(served, need, flight, arrival):
                # Uses prolong an entry's TTL; a stale entry's is over.
                if not served.is_stale:
                    self._count_use(served)
                return served
            # A stale entry is not an answer of the origin.
            if not served.is_stale and self._asked_since(flight, arrival):
                raise NoSuchObject(
                    "the origin holds only objects from before origin_after, or some of them",
                    reason="ORIGIN_OUTDATED",
                )
            # The flight was under way before this call came: the next flight asks the origin.

    def _meets(self, served: Served, need: Need, flight: Flight, arrival: Now) -> bool:
        """Return whether what a flight landed with is new enough for a call that waited for it."""
        ask = self._state.ask(need)
        if need.named_ns and not served.is_stale and self._asked_since(flight, arrival):
            return is_said_new_enough(served.meta, ask)
        return is_stored_new_enough(served.meta, ask)

    def _asked_since(self, flight: Flight, arrival: Now) -> bool:
        """Return whether the flight asked the origin after `arrival`."""
        began_ns = flight.origin_began_ns
        return began_ns is not None and began_ns >= arrival.steady_ns

    def _lookup_or_join(
        self, request: ReadRequest, need: Need
    ) -> Served | tuple[Flight, asyncio.Future[Served]]:
        """Return L1's entry, or the flight to wait on. No await: one flight per key."""
        state = self._state
        steady_ns = state.clock.read().steady_ns
        cached = state.memory.lookup(request.key, steady_ns)
        if cached is not None:
            served = Served(cached.meta, cached.blob, Tier.MEMORY, cached.expires_ns)
            if is_current(served.meta, served.expires_ns, state.ask(need), steady_ns):
                self._count_hits(cached, steady_ns, 1)
                return served
        flight = state.flights.find(request.key, request.owner)
        if flight is not None and not self._may_join(flight, need, steady_ns):
            state.flights.detach(flight)
            flight = None
        if flight is None:
            flight = self._start(request, need, steady_ns)
            return flight, flight.wait()
        state.metrics.coalesced.inc()
        future = flight.join(to_memory=request.to_memory, may_ask_origin=request.may_ask_origin)
        return flight, future

    # ---- uses

    def count_local_hits(self, key: EntryKey, generation: int, count: int) -> int:
        """Count hits that a worker served itself; 0 if L1 holds other bytes by now."""
        steady_ns = self._state.clock.read().steady_ns
        cached = self._state.memory.lookup(key, steady_ns)
        if cached is None or cached.meta.generation != generation:
            return 0
        self._count_hits(cached, steady_ns, count)
        return count

    def _count_hits(self, cached: MemoryEntry, steady_ns: int, count: int) -> None:
        self._state.memory.record_use(cached, steady_ns, count)
        self._state.uses.note(cached.meta, cached.accesses, steady_ns)

    def _count_use(self, served: Served) -> None:
        """Count an answer that came from a flight, whether or not L1 had room for it."""
        uses, steady_ns = self._state.uses, self._state.clock.read().steady_ns
        if not self.count_local_hits(served.meta.key, served.meta.generation, 1):
            accesses = more_accesses(uses.accesses_of(served.meta, served.accesses), 1)
            uses.note(served.meta, accesses, steady_ns)

    # ---- flights

    def _may_join(self, flight: Flight, need: Need, steady_ns: int) -> bool:
        """Return False if the flight has landed with an entry too old for this call.

        A disk that hangs can keep a landed flight for longer than its entry may be served.
        """
        result = flight.result
        if result is None:
            return True
        return is_current(result.meta, result.expires_ns, self._state.ask(need), steady_ns)

    def _start(self, request: ReadRequest, need: Need, steady_ns: int) -> Flight:
        state = self._state
        state.absences.check(request.key, request.owner, need, steady_ns)
        if len(state.flights) >= state.limits.max_flights:
            raise Overloaded("too many fills are under way; retry later", reason="TOO_MANY_FLIGHTS")
        flight = Flight(
            request.key,
            request.owner,
            request.kind,
            need,
            to_memory=request.to_memory,
            may_ask_origin=request.may_ask_origin,
        )
        self._runner.start(flight)
        return flight
