"""Remembers for a short time which objects the origin does not have.

A page that shows a garment without tensors asks again and again; the memory
spares the origin these requests. The memory is bounded, and a Put or an Invalidate clears it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cachesvc.core.errors import NoSuchObject
from cachesvc.core.freshness import Need
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope

MAX_ABSENCES = 10_000


@dataclass(frozen=True, slots=True)
class Absence:
    """`asked_ns` (wall) is when the origin was asked; `until_ns` (steady) ends the absence."""

    asked_ns: int
    until_ns: int
    object_keys: tuple[str, ...]


class Absences:
    """Remembered absences, by key and owner: a call with a wrong owner hides no entry."""

    def __init__(self) -> None:
        self._absences: OrderedDict[tuple[EntryKey, str], Absence] = OrderedDict()
        # The owners of each key: an invalidation of one person need not scan all absences.
        self._owners: dict[EntryKey, set[str]] = {}

    def __len__(self) -> int:
        return len(self._absences)

    def add(self, key: EntryKey, owner: str, absence: Absence) -> None:
        self.forget(key, owner)
        self._absences[key, owner] = absence
        self._owners.setdefault(key, set()).add(owner)
        while len(self._absences) > MAX_ABSENCES:
            self.forget(*next(iter(self._absences)))

    def check(self, key: EntryKey, owner: str, need: Need, steady_ns: int) -> None:
        """Raise NoSuchObject if a remembered absence answers `need`.

        A caller with `origin_after` knows of an upload; an absence recorded earlier does
        not answer it.
        """
        absence = self._absences.get((key, owner))
        if absence is None:
            return
        if steady_ns >= absence.until_ns:
            self.forget(key, owner)
        elif not need.named_ns or need.moment_ns <= absence.asked_ns <= need.arrival_ns:
            raise NoSuchObject("the origin has no such object", object_keys=absence.object_keys)

    def forget(self, key: EntryKey, owner: str) -> None:
        """Forget an absence: the origin has the object now, or may have it."""
        if self._absences.pop((key, owner), None) is None:
            return
        owners = self._owners[key]
        owners.discard(owner)
        if not owners:
            del self._owners[key]

    def clear(self, scope: Scope) -> None:
        """Forget what `scope` covers."""
        keys = scope.keys()
        if keys is None:
            known = list(self._absences)
        else:
            known = [(key, owner) for key in keys for owner in self._owners.get(key, ())]
        for key, owner in known:
            if scope.covers(key, owner):
                self.forget(key, owner)
