"""L1's index: which entries there are, what they take, and which have to leave for a new one.

Bookkeeping only: the caller closes and unlinks the files of evicted entries. In which order
entries leave stands in `lru.py`. All sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.lru import LruOrder


class Sized(Protocol):
    @property
    def key(self) -> EntryKey: ...

    @property
    def size_bytes(self) -> int: ...


E = TypeVar("E", bound=Sized)


@dataclass(frozen=True, slots=True)
class NamespaceLimits:
    """`max_bytes` 0 = only L1's total is bounded."""

    max_entries: int
    max_bytes: int = 0


@dataclass(slots=True)
class Usage:
    entries: int = 0
    size_bytes: int = 0


class MemoryIndex(Generic[E]):
    """Entries within the limits of their namespaces and the total, in the order of eviction."""

    def __init__(self, limits: dict[str, NamespaceLimits], max_bytes: int) -> None:
        self.limits = limits
        self.max_bytes = max_bytes
        self.usage = {namespace: Usage() for namespace in limits}
        self.used_bytes = 0
        self._entries: dict[EntryKey, E] = {}
        self._order = LruOrder(limits)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        """Iterate in the order of eviction."""
        return map(self._entries.__getitem__, self._order)

    def peek(self, key: EntryKey) -> E | None:
        """Return the entry without counting a use."""
        return self._entries.get(key)

    def touch(self, key: EntryKey) -> None:
        """Count a use of `key`. It must be in the index."""
        self._order.touch(key)

    def add(self, entry: E) -> None:
        """Add `entry` as one just used. Its key must not be in the index."""
        key = entry.key
        assert key not in self._entries
        self._entries[key] = entry
        self._order.add(key)
        usage = self.usage[key.namespace]
        usage.entries += 1
        usage.size_bytes += entry.size_bytes
        self.used_bytes += entry.size_bytes

    def remove(self, key: EntryKey) -> E | None:
        """Remove and return the entry; return None if the index has none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self._order.remove(key)
        usage = self.usage[key.namespace]
        usage.entries -= 1
        usage.size_bytes -= entry.size_bytes
        self.used_bytes -= entry.size_bytes
        assert usage.size_bytes >= 0
        return entry

    def plan_room(
        self, key: EntryKey, size_bytes: int, outside_bytes: int
    ) -> list[tuple[E, Leaving]] | None:
        """Return the entries to evict before `key` is added; None if no eviction would help.

        `outside_bytes` also count against the total: reserved room, and evicted bytes
        that readers still hold. An older entry of `key` stays until it is replaced: its
        bytes count against the total, but it is not counted as a second entry.
        """
        limits, usage = self.limits[key.namespace], self.usage[key.namespace]
        old = self._entries.get(key)
        kept_bytes = outside_bytes + (old.size_bytes if old else 0)
        if size_bytes + kept_bytes > self.max_bytes:
            return None
        if limits.max_bytes and size_bytes > limits.max_bytes:
            return None
        entries = usage.entries + (old is None)
        namespace_bytes = usage.size_bytes - (old.size_bytes if old else 0) + size_bytes
        total_bytes = self.used_bytes + size_bytes + outside_bytes
        victims: dict[EntryKey, tuple[E, Leaving]] = {}
        for victim in map(self._entries.__getitem__, self._order.of(key.namespace)):
            over_entries = entries > limits.max_entries
            if not over_entries and not (limits.max_bytes and namespace_bytes > limits.max_bytes):
                break
            if victim.key == key:
                continue
            cause = Leaving.ENTRIES_LIMIT if over_entries else Leaving.BYTES_LIMIT
            victims[victim.key] = (victim, cause)
            entries -= 1
            namespace_bytes -= victim.size_bytes
            total_bytes -= victim.size_bytes
        for victim in self:
            if total_bytes <= self.max_bytes:
                break
            if victim.key == key or victim.key in victims:
                continue
            victims[victim.key] = (victim, Leaving.BYTES_LIMIT)
            total_bytes -= victim.size_bytes
        return list(victims.values())
