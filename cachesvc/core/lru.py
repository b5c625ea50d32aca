"""In which order do entries leave L1? The least recently used first.

The order only proposes: `memory_index.py` decides how many entries leave. L2's order stands in
`tiers/catalog_rows.py`, in SQL.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from cachesvc.core.keys import EntryKey


class LruOrder:
    """Keys in the order of their use, per namespace and overall."""

    def __init__(self, namespaces: Iterable[str]) -> None:
        self._by_use: OrderedDict[EntryKey, None] = OrderedDict()
        self._by_namespace: dict[str, OrderedDict[EntryKey, None]] = {
            namespace: OrderedDict() for namespace in namespaces
        }

    def __iter__(self) -> Iterator[EntryKey]:
        """Iterate in the order of eviction: from the least to the most recently used."""
        return iter(self._by_use)

    def of(self, namespace: str) -> Iterator[EntryKey]:
        """Iterate over the keys of `namespace` in the order of eviction."""
        return iter(self._by_namespace[namespace])

    def add(self, key: EntryKey) -> None:
        """Add a new key, which has just been used."""
        self._by_use[key] = None
        self._by_namespace[key.namespace][key] = None

    def touch(self, key: EntryKey) -> None:
        """Note a use of `key`."""
        self._by_use.move_to_end(key)
        self._by_namespace[key.namespace].move_to_end(key)

    def remove(self, key: EntryKey) -> None:
        """Forget `key`: it was evicted, has expired, was replaced or invalidated."""
        del self._by_use[key]
        del self._by_namespace[key.namespace][key]
