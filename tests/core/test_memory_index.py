"""Does the index count right, and does it evict as much as needed and no more?"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.memory_index import MemoryIndex, NamespaceLimits

LIMITS = {"human": NamespaceLimits(3), "text": NamespaceLimits(5, max_bytes=50)}
MAX_BYTES = 100
_KEYS = [EntryKey(namespace, name) for namespace in LIMITS for name in "abcdef"]
KEYS = st.sampled_from(_KEYS)
SIZES = st.integers(1, 60)


@dataclass(frozen=True, slots=True)
class Item:
    key: EntryKey
    size_bytes: int


def index_of(*items: Item) -> MemoryIndex[Item]:
    index: MemoryIndex[Item] = MemoryIndex(LIMITS, MAX_BYTES)
    for item in items:
        index.add(item)
    return index


def is_within_limits(items: list[Item], outside_bytes: int) -> bool:
    if sum(item.size_bytes for item in items) + outside_bytes > MAX_BYTES:
        return False
    for namespace, limits in LIMITS.items():
        mine = [item.size_bytes for item in items if item.key.namespace == namespace]
        if len(mine) > limits.max_entries:
            return False
        if limits.max_bytes and sum(mine) > limits.max_bytes:
            return False
    return True


class Index(RuleBasedStateMachine):
    """The index, checked against a plain list in the order of use."""

    def __init__(self) -> None:
        super().__init__()
        self.index = index_of()
        self.model: list[Item] = []
        self.outside_bytes = 0

    @rule(key=KEYS, size=SIZES)
    def admit(self, key: EntryKey, size: int) -> None:
        """Admit as L1 does: make room, replace, add."""
        plan = self.index.plan_room(key, size, self.outside_bytes)
        old = self.index.peek(key)
        if plan is None:
            kept = self.outside_bytes + (old.size_bytes if old else 0)
            max_bytes = LIMITS[key.namespace].max_bytes or MAX_BYTES
            assert size + kept > MAX_BYTES or size > max_bytes
            return
        victims = [victim for victim, _ in plan]
        assert key not in {victim.key for victim in victims}
        self.check_is_needed(Item(key, size), victims)
        for victim in victims:
            assert self.index.remove(victim.key) is victim
            self.model.remove(victim)
        if old is not None:
            self.index.remove(key)
            self.model.remove(old)
        self.index.add(Item(key, size))
        self.model.append(Item(key, size))

    def check_is_needed(self, new: Item, victims: list[Item]) -> None:
        """Check that with one victim less the limits would be exceeded."""
        others = [item for item in self.model if item.key != new.key]
        old_bytes = sum(item.size_bytes for item in self.model if item.key == new.key)
        left = [item for item in others if item not in victims]
        # The older entry's bytes count until the new entry has replaced it.
        outside_bytes = self.outside_bytes + old_bytes
        assert is_within_limits([*left, new], outside_bytes)
        if victims:
            assert not is_within_limits([*left, victims[-1], new], outside_bytes)

    @rule(key=KEYS)
    def remove(self, key: EntryKey) -> None:
        removed = self.index.remove(key)
        assert (removed is not None) == any(item.key == key for item in self.model)
        self.model = [item for item in self.model if item.key != key]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.model))
        self.index.touch(item.key)
        self.model.remove(item)
        self.model.append(item)

    @rule(taken=st.integers(0, 40))
    def take_room_outside(self, taken: int) -> None:
        used = sum(item.size_bytes for item in self.model)
        self.outside_bytes = min(taken, MAX_BYTES - used)

    @invariant()
    def used_bytes_always_equal_the_sum_of_entry_sizes(self) -> None:
        assert self.index.used_bytes == sum(item.size_bytes for item in self.model)
        for namespace, usage in self.index.usage.items():
            mine = [item for item in self.model if item.key.namespace == namespace]
            assert usage.entries == len(mine)
            assert usage.size_bytes == sum(item.size_bytes for item in mine)

    @invariant()
    def the_order_is_that_of_use_and_the_limits_hold(self) -> None:
        assert list(self.index) == self.model
        assert len(self.index) == len(self.model)
        assert is_within_limits(self.model, self.outside_bytes)


TestIndex = Index.TestCase

A, B, C = (EntryKey("human", name) for name in "abc")


def test_the_least_recently_used_of_a_full_namespace_leaves() -> None:
    index = index_of(Item(A, 1), Item(B, 1), Item(C, 1))
    index.touch(A)
    plan = index.plan_room(EntryKey("human", "d"), 1, 0)
    assert plan == [(Item(B, 1), Leaving.ENTRIES_LIMIT)]


def test_a_full_namespace_takes_nothing_from_another() -> None:
    index = index_of(Item(EntryKey("text", "t"), 1), Item(A, 1), Item(B, 1), Item(C, 1))
    plan = index.plan_room(EntryKey("human", "d"), 1, 0)
    assert plan == [(Item(A, 1), Leaving.ENTRIES_LIMIT)]


def test_the_total_takes_the_least_recently_used_of_all() -> None:
    index = index_of(Item(A, 40), Item(EntryKey("text", "t"), 40))
    plan = index.plan_room(EntryKey("text", "u"), 10, 20)
    assert plan == [(Item(A, 40), Leaving.BYTES_LIMIT)]


def test_what_cannot_fit_evicts_nothing() -> None:
    index = index_of(Item(A, 40))
    assert index.plan_room(B, 101, 0) is None
    assert index.plan_room(B, 50, 51) is None
    assert index.plan_room(EntryKey("text", "t"), 51, 0) is None


def test_a_replacement_needs_no_second_place() -> None:
    index = index_of(Item(A, 10), Item(B, 10), Item(C, 10))
    assert index.plan_room(A, 10, 0) == []


@given(size=st.integers(1, 200), outside=st.integers(0, 200))
def test_an_empty_index_admits_exactly_what_fits(size: int, outside: int) -> None:
    plan = index_of().plan_room(A, size, outside)
    assert (plan == []) == (size + outside <= MAX_BYTES)


def test_peeking_is_no_use() -> None:
    index = index_of(Item(A, 1), Item(B, 1))
    assert index.peek(A) == Item(A, 1)
    assert [item.key for item in index] == [A, B]


@pytest.mark.parametrize("key", [A, EntryKey("text", "t")])
def test_removing_what_is_not_there_changes_nothing(key: EntryKey) -> None:
    index = index_of(Item(B, 1))
    assert index.remove(key) is None
    assert index.used_bytes == 1
