"""Which entries does L1 evict? The least recently used of a namespace and in total.

Bookkeeping only: the caller closes and unlinks the files of evicted entries.
All sizes are bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving


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


class LruIndex(Generic[E]):
    """Entries in the order of their use, per namespace and overall."""

    def __init__(self, limits: dict[str, NamespaceLimits], max_bytes: int) -> None:
        self.limits = limits
        self.max_bytes = max_bytes
        self.usage = {namespace: Usage() for namespace in limits}
        self.used_bytes = 0
        self._by_use: OrderedDict[EntryKey, E] = OrderedDict()
        self._by_namespace: dict[str, OrderedDict[EntryKey, E]] = {
            namespace: OrderedDict() for namespace in limits
        }

    def __len__(self) -> int:
        return len(self._by_use)

    def __iter__(self) -> Iterator[E]:
        """Iterate from the least to the most recently used."""
        return iter(self._by_use.values())

    def peek(self, key: EntryKey) -> E | None:
        """Return the entry without touching its recency."""
        return self._by_use.get(key)

    def touch(self, key: EntryKey) -> None:
        """Make `key` the most recently used. It must be in the index."""
        self._by_use.move_to_end(key)
        self._by_namespace[key.namespace].move_to_end(key)

    def add(self, entry: E) -> None:
        """Add `entry` as the most recently used. Its key must not be in the index."""
        key = entry.key
        assert key not in self._by_use
        self._by_use[key] = entry
        self._by_namespace[key.namespace][key] = entry
        usage = self.usage[key.namespace]
        usage.entries += 1
        usage.size_bytes += entry.size_bytes
        self.used_bytes += entry.size_bytes

    def remove(self, key: EntryKey) -> E | None:
        """Remove and return the entry; return None if the index has none."""
        entry = self._by_use.pop(key, None)
        if entry is None:
            return None
        del self._by_namespace[key.namespace][key]
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
        old = self._by_use.get(key)
        kept_bytes = outside_bytes + (old.size_bytes if old else 0)
        if size_bytes + kept_bytes > self.max_bytes:
            return None
        if limits.max_bytes and size_bytes > limits.max_bytes:
            return None
        entries = usage.entries + (old is None)
        namespace_bytes = usage.size_bytes - (old.size_bytes if old else 0) + size_bytes
        total_bytes = self.used_bytes + size_bytes + outside_bytes
        victims: dict[EntryKey, tuple[E, Leaving]] = {}
        for victim in self._by_namespace[key.namespace].values():
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
        for victim in self._by_use.values():
            if total_bytes <= self.max_bytes:
                break
            if victim.key == key or victim.key in victims:
                continue
            victims[victim.key] = (victim, Leaving.BYTES_LIMIT)
            total_bytes -= victim.size_bytes
        return list(victims.values())
