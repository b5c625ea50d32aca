"""What the origin was just asked for and does not have.

A page that shows a garment without tensors asks again and again; a short memory
spares the origin. It is bounded, and a Put or an Invalidate clears it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cachesvc.core.errors import NoSuchObject
from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope

MAX_ABSENCES = 10_000


@dataclass(frozen=True, slots=True)
class Absence:
    """`asked_ns` (wall) is when the origin's answer was asked for; `until_ns` is steady."""

    asked_ns: int
    until_ns: int
    object_keys: tuple[str, ...]


class Absences:
    """Remembered absences, by key and owner: a wrong owner hides nothing from the right one."""

    def __init__(self) -> None:
        self._absences: OrderedDict[tuple[EntryKey, str], Absence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._absences)

    def add(self, key: EntryKey, owner: str, absence: Absence) -> None:
        self._absences.pop((key, owner), None)
        self._absences[key, owner] = absence
        while len(self._absences) > MAX_ABSENCES:
            self._absences.popitem(last=False)

    def check(self, key: EntryKey, owner: str, *, needed_ns: int, steady_ns: int) -> None:
        """Raise NoSuchObject if the origin said so a moment ago, and not before `needed_ns`.

        A caller that names the moment of a change knows of an upload; an older answer
        is none to its question.
        """
        absence = self._absences.get((key, owner))
        if absence is None:
            return
        if steady_ns >= absence.until_ns:
            del self._absences[key, owner]
        elif absence.asked_ns >= needed_ns:
            raise NoSuchObject("the origin has no such object", object_keys=absence.object_keys)

    def forget(self, key: EntryKey, owner: str) -> None:
        """The origin has it now."""
        self._absences.pop((key, owner), None)

    def clear(self, scope: Scope) -> None:
        """Forget what `scope` covers."""
        for key, owner in [at for at in self._absences if scope.covers(*at)]:
            del self._absences[key, owner]
