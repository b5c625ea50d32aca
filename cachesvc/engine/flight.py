"""One flight per key: who fetches, who waits, and what an invalidation does to both.

A flight is everything between an L1 miss and the end of the L2 commit. It runs in
a task of its own, so a waiter that leaves stops nothing; each waiter has a future
of its own, so cancelling one reaches no other. All of this is plain functions:
nothing changes between their lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from cachesvc.core.entry import EntryMeta
from cachesvc.core.errors import CacheError, StaleFill
from cachesvc.core.freshness import Need
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kind
from cachesvc.core.scopes import Scope
from cachesvc.engine.ports import Blob


class Served(NamedTuple):
    """An entry on its way to a caller. `tier` is memory, disk or origin.

    `accesses` are those that were known when it was found.
    """

    meta: EntryMeta
    blob: Blob
    tier: str
    expires_ns: int
    accesses: int = 0
    is_stale: bool = False


@dataclass(slots=True, eq=False)
class Flight:
    """`owner` empty = nobody said whose it is, so only L2 can be asked.

    `need` is the `origin_after` of the call that started it. `source_owner` is
    whose bytes it carries, None as long as they may come from L2. `origin_began_ns`
    is the steady time at which its origin reads began. `to_memory` False = L2 only.
    `may_ask_origin` False = only what L2 has. `stored_meanwhile` is what other flights of
    the key, which ended while this one was under way, had filled. `answered` is set once
    its waiters were told the result, the error or the fence.
    """

    key: EntryKey
    owner: str
    kind: Kind
    need: Need
    to_memory: bool = True
    may_ask_origin: bool = True
    source_owner: str | None = None
    origin_began_ns: int | None = None
    fenced: bool = False
    result: Served | None = None
    waiters: set[asyncio.Future[Served]] = field(default_factory=set)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    stored_meanwhile: list[EntryMeta] = field(default_factory=list)

    # ---- where its bytes come from, which decides what fences it

    def from_origin(self, owner: str, steady_ns: int | None = None) -> None:
        """Take no bytes of L2 from here on: only an invalidation that covers `owner` fences it.

        `steady_ns` is when its reads of the origin begin, None as long as they have not.
        """
        self.check_fence()
        self.source_owner = owner
        if steady_ns is not None:
            self.origin_began_ns = steady_ns

    def back_to_disk(self) -> None:
        """Take bytes of L2 again: from here on an invalidation by any owner fences it."""
        self.check_fence()
        self.source_owner = None

    # ---- who waits

    def join(self, *, to_memory: bool, may_ask_origin: bool) -> asyncio.Future[Served]:
        """Return a future of the result for one more call, and do for it what it asks for."""
        self.to_memory = self.to_memory or to_memory
        self.may_ask_origin = self.may_ask_origin or may_ask_origin
        return self.wait()

    # ---- how it ends

    def check_fence(self) -> None:
        """Raise StaleFill if a newer change of the key has overtaken this flight.

        Call it in the same function that publishes or queues: nothing may come between.
        """
        if self.fenced:
            raise StaleFill("a newer change of the key overtook this fill")

    def wait(self) -> asyncio.Future[Served]:
        """Return a future of the result, for one waiter."""
        future: asyncio.Future[Served] = asyncio.get_running_loop().create_future()
        if self.result is not None:
            future.set_result(self.result)
        else:
            self.waiters.add(future)
            future.add_done_callback(self.waiters.discard)
        return future

    def land(self, result: Served) -> None:
        """Hand the result to everyone who waits, and to those who still come."""
        self.result = result
        self._release(lambda future: future.set_result(result))

    def land_unpublished(
        self, meta: EntryMeta, blob: Blob, tier: str, accesses: int = 0, *, is_stale: bool = False
    ) -> None:
        """Answer those who wait, and let nobody else have it."""
        self.check_fence()
        self.land(Served(meta, blob, tier, meta.confirmed_ns, accesses, is_stale))

    def fail(self, error: CacheError) -> None:
        """Hand the error to everyone who waits."""
        self._release(lambda future: future.set_exception(error))

    def fence(self) -> None:
        """Detach it: it publishes nowhere, and its waiters start again."""
        self.fenced = True
        self.fail(StaleFill("a newer change of the key overtook this fill"))

    def _release(self, settle: Callable[[asyncio.Future[Served]], None]) -> None:
        for future in list(self.waiters):
            if not future.done():
                settle(future)
        self.waiters.clear()
        self.answered.set()


class FlightTable:
    """The flights under way, by key and owner."""

    def __init__(self) -> None:
        self._flights: dict[tuple[EntryKey, str], Flight] = {}
        # Fenced ones are still running, but nobody can join them. A dict for its order: with
        # the same schedule, waiters wake in the same order in every process.
        self._detached: dict[Flight, None] = {}

    def __len__(self) -> int:
        return len(self._flights) + len(self._detached)

    def find(self, key: EntryKey, owner: str) -> Flight | None:
        return self._flights.get((key, owner))

    def is_filling(self, key: EntryKey) -> bool:
        return any(flight.key == key for flight in self._flights.values())

    def awaited(self) -> list[Flight]:
        """Return the flights that somebody waits for now."""
        return [f for f in (*self._flights.values(), *self._detached) if f.waiters]

    def add(self, flight: Flight) -> None:
        identity = (flight.key, flight.owner)
        assert identity not in self._flights
        self._flights[identity] = flight

    def detach(self, flight: Flight) -> None:
        """Let nobody join it any more; it goes on for those it has."""
        identity = (flight.key, flight.owner)
        if self._flights.get(identity) is flight:
            del self._flights[identity]
            self._detached[flight] = None

    def remove(self, flight: Flight) -> None:
        """Forget a flight that has ended; those of its key that go on may replace its bytes."""
        self.detach(flight)
        self._detached.pop(flight, None)
        if flight.result is not None:
            for other in self._of(flight.key):
                other.stored_meanwhile.append(flight.result.meta)

    def fence(self, scope: Scope, *, only_from_disk: bool = False) -> None:
        """Fence what `scope` covers.

        A flight whose bytes may still come from L2 is covered by any owner's scope.
        With `only_from_disk` the others are left alone.
        """
        flights = [*self._flights.values(), *self._detached]
        covered = [
            flight
            for flight in flights
            if not flight.fenced
            and scope.covers(flight.key, flight.source_owner)
            and (flight.source_owner is None or not only_from_disk)
        ]
        for flight in covered:
            flight.fence()
            self.detach(flight)

    def fence_landed(self, newer: Flight) -> list[EntryMeta]:
        """Fence flights of the same key that have landed: `newer` is about to replace them.

        Otherwise the older one's commit could end up behind the newer one's. Returns what
        they landed with: one that has queued its row already cannot be held back.
        """
        replaced = []
        for flight in self._of(newer.key):
            if flight.result is not None and flight is not newer:
                flight.fence()
                self.detach(flight)
                replaced.append(flight.result.meta)
        return replaced

    def _of(self, key: EntryKey) -> list[Flight]:
        return [f for f in (*self._flights.values(), *self._detached) if f.key == key]
