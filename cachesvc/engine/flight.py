"""One flight per key: who fetches, who waits, and what an invalidation does to both.

A flight is everything between an L1 miss and the end of the L2 commit. It runs in
a task of its own, so a waiter that leaves stops nothing; each waiter has its own
future, so cancelling a waiter reaches no other. All functions here are plain: no
other task runs between their lines.
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
from cachesvc.core.tier import Tier
from cachesvc.tiers.shared_files import Blob


class Served(NamedTuple):
    """An entry on its way to a caller. `tier` is memory, disk or origin.

    `accesses` is the count that was known when the entry was found. `in_l2` False = a Put that L2
    did not take.
    """

    meta: EntryMeta
    blob: Blob
    tier: Tier
    expires_ns: int
    accesses: int = 0
    is_stale: bool = False
    in_l2: bool = True


@dataclass(slots=True, eq=False)
class Flight:
    """`owner` empty = the caller named none, so only L2 can be asked.

    `need` is the `origin_after` of the call that started it. `source_owner` is
    whose bytes it carries, None as long as they may come from L2. `origin_began_ns` (steady)
    is when its origin reads began. `to_memory` False = do not fill L1. `may_ask_origin`
    False = L2 only. `stored_meanwhile` lists the results of the key's other flights that
    ended while this one ran. `answered` is set once its waiters have a result or an error.
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
        """From here on take no bytes of L2: only an invalidation that covers `owner` fences it.

        `steady_ns` is when its origin reads begin, None = not yet.
        """
        self.check_fence()
        self.source_owner = owner
        if steady_ns is not None:
            self.origin_began_ns = steady_ns

    def back_to_disk(self) -> None:
        """Take bytes of L2 again: from here on an invalidation of any owner fences it."""
        self.check_fence()
        self.source_owner = None

    # ---- who waits

    def join(self, *, to_memory: bool, may_ask_origin: bool) -> asyncio.Future[Served]:
        """Add a call: also do what it asks for, and return its future of the result."""
        self.to_memory = self.to_memory or to_memory
        self.may_ask_origin = self.may_ask_origin or may_ask_origin
        return self.wait()

    # ---- how it ends

    def check_fence(self) -> None:
        """Raise StaleFill if a newer change of the key has overtaken this flight.

        Call it in the same function that publishes or queues, with no `await` between.
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
        """Hand the result to all waiters, and to those that join later."""
        self.result = result
        self._release(lambda future: future.set_result(result))

    def land_unpublished(
        self, meta: EntryMeta, blob: Blob, tier: Tier, accesses: int = 0, *, is_stale: bool = False
    ) -> None:
        """Hand the result to the waiters, and publish it to no tier."""
        self.check_fence()
        self.land(Served(meta, blob, tier, meta.confirmed_ns, accesses, is_stale))

    def fail(self, error: CacheError) -> None:
        """Hand the error to all waiters."""
        self._release(lambda future: future.set_exception(error))

    def fence(self) -> None:
        """Mark the flight as overtaken: it publishes nowhere, and its waiters start again."""
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
        # Flights that still run, but that no call can join. A dict for its order: with the
        # same schedule, waiters wake in the same order in every process.
        self._detached: dict[Flight, None] = {}

    def __len__(self) -> int:
        return len(self._flights) + len(self._detached)

    def find(self, key: EntryKey, owner: str) -> Flight | None:
        return self._flights.get((key, owner))

    def is_filling(self, key: EntryKey) -> bool:
        return any(flight.key == key for flight in self._flights.values())

    def awaited(self) -> list[Flight]:
        """Return the flights that have waiters now."""
        return [f for f in (*self._flights.values(), *self._detached) if f.waiters]

    def add(self, flight: Flight) -> None:
        identity = (flight.key, flight.owner)
        assert identity not in self._flights
        self._flights[identity] = flight

    def detach(self, flight: Flight) -> None:
        """Let no call join `flight` any more; it goes on for the waiters it has."""
        identity = (flight.key, flight.owner)
        if self._flights.get(identity) is flight:
            del self._flights[identity]
            self._detached[flight] = None

    def remove(self, flight: Flight) -> None:
        """Forget a flight that has ended; tell its result to the key's other flights."""
        self.detach(flight)
        self._detached.pop(flight, None)
        if flight.result is not None:
            for other in self._of(flight.key):
                other.stored_meanwhile.append(flight.result.meta)

    def fence(self, scope: Scope, *, only_from_disk: bool = False) -> None:
        """Fence what `scope` covers.

        A flight whose bytes may still come from L2 is covered by any owner's scope.
        With `only_from_disk` all other flights are left alone.
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

        Otherwise an older flight's commit could follow the newer one's. Returns what the older
        flights landed with: a row that is already queued cannot be held back.
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
