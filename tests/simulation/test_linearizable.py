"""Does the judge of histories object to what promise 1 forbids, and only to that?

Each test writes a history, one moment after the other. `read` and `photo` return sources.
"""

from __future__ import annotations

import itertools

import pytest

from cachesvc.core.keys import EntryKey
from cachesvc.core.scopes import Scope, ScopeKind, key_scope
from tests.simulation.history import Call, History, Overlap, Source
from tests.simulation.linearizable import judge

KEY = EntryKey("upper", "ann")
COAT = EntryKey("garment", "coat")


class Told:
    """Writes a history. `begin_x` returns a call that `end` answers; `x` does both."""

    def __init__(self) -> None:
        self.history = History()

    def read(self, key: EntryKey = KEY, owner: str = "ann", **more: bool | int) -> Source:
        return self.history.add_source(key, owner, **more)

    def photo(self, *, named: bool = True, owner: str = "ann") -> Source:
        return self.history.add_source(KEY, owner, is_put=True, named=named)

    def begin_get(self, key: EntryKey = KEY, owner: str = "ann", needed_ns: int = 0) -> Call:
        return self.history.begin("get", key, owner=owner, needed_ns=needed_ns)

    def begin_put(self, source: Source) -> Call:
        return self.history.begin("put", source.key, owner=source.owner, source=source)

    def begin_invalidate(self, scope: Scope | None = None) -> Call:
        return self.history.begin("invalidate", scope=scope or key_scope(KEY))

    def end(self, call: Call, source: Source | None = None, *, is_kept: bool = True) -> None:
        call.ended, call.is_done, call.is_kept = self.history.moment(), True, is_kept
        call.source = source or call.source

    def get(self, source: Source, *, is_kept: bool = True) -> None:
        self.end(self.begin_get(source.key), source, is_kept=is_kept)

    def end_with_error(self, call: Call) -> None:
        call.ended, call.error = self.history.moment(), "ORIGIN_UNAVAILABLE"

    def get_absent(self) -> None:
        call = self.begin_get()
        call.ended, call.found_absent = self.history.moment(), True

    def put(self, source: Source) -> None:
        self.end(self.begin_put(source))

    def invalidate(self, scope: Scope | None = None) -> None:
        self.end(self.begin_invalidate(scope))

    @property
    def is_allowed(self) -> bool:
        return not judge(self.history, grace_ns=0)


@pytest.fixture
def told() -> Told:
    return Told()


SCOPES = (
    key_scope(KEY),
    Scope(ScopeKind.USER, "ann", ("upper", "lower")),
    Scope(ScopeKind.OWNER, "ann"),
    Scope(ScopeKind.NAMESPACE, "upper"),
    Scope(ScopeKind.EVERYTHING),
)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: scope.kind.value)
def test_bytes_read_before_an_invalidation_are_not_served_after_it(
    told: Told, scope: Scope
) -> None:
    old = told.read()
    told.invalidate(scope)
    told.get(old)
    assert not told.is_allowed


@pytest.mark.parametrize(
    "scope", [Scope(ScopeKind.USER, "bob", ("upper",)), Scope(ScopeKind.NAMESPACE, "lower")]
)
def test_an_invalidation_of_something_else_ends_nothing(told: Told, scope: Scope) -> None:
    source = told.read()
    told.invalidate(scope)
    told.get(source)
    assert told.is_allowed


def test_bytes_read_during_an_invalidation_may_be_served_after_it(told: Told) -> None:
    invalidating = told.begin_invalidate()
    source = told.read()
    told.end(invalidating)
    told.get(source)
    assert told.is_allowed


def test_a_get_that_began_before_the_answer_may_still_be_served_older_bytes(told: Told) -> None:
    old = told.read()
    getting = told.begin_get()
    told.invalidate()
    told.end(getting, old)
    assert told.is_allowed


def test_an_invalidation_that_was_seen_to_have_happened_is_not_undone(told: Told) -> None:
    old = told.read()
    invalidating = told.begin_invalidate()
    new = told.read()
    told.get(new)
    told.get(old)
    told.end(invalidating)
    assert not told.is_allowed


def test_bytes_older_than_a_put_are_not_served_after_it(told: Told) -> None:
    old = told.read()
    told.put(told.photo())
    told.get(old)
    assert not told.is_allowed


def test_bytes_read_after_a_put_may_be_served(told: Told) -> None:
    told.put(told.photo())
    told.get(told.read())
    assert told.is_allowed


@pytest.mark.parametrize("seen", list(itertools.product("ab", repeat=3)))
def test_of_two_puts_at_once_either_may_be_the_last_but_only_one(
    told: Told, seen: tuple[str, ...]
) -> None:
    photos = {"a": told.photo(named=False), "b": told.photo(named=False)}
    first, second = told.begin_put(photos["a"]), told.begin_put(photos["b"])
    told.end(first)
    told.end(second)
    for name in seen:
        told.get(photos[name])
    assert told.is_allowed == (len(set(seen)) == 1)


def test_a_put_whose_photo_was_read_before_an_invalidation_is_not_stored_after_it(
    told: Told,
) -> None:
    photo = told.photo()
    told.invalidate()
    told.put(photo)
    assert not told.is_allowed


def test_a_put_whose_photo_was_read_after_the_invalidation_is_stored(told: Told) -> None:
    told.invalidate()
    photo = told.photo()
    told.put(photo)
    told.get(photo)
    assert told.is_allowed


def test_a_put_with_an_older_photo_than_the_stored_one_is_not_stored(told: Told) -> None:
    older, newer = told.photo(), told.photo()
    told.put(newer)
    told.put(older)
    assert not told.is_allowed


@pytest.mark.parametrize("sees_it", [False, True])
def test_a_put_that_failed_or_was_cut_off_may_have_happened_or_not(
    told: Told, sees_it: bool
) -> None:
    before, photo = told.read(), told.photo()
    told.begin_put(photo)
    told.history.crash()
    told.get(photo if sees_it else before)
    assert told.is_allowed


def test_a_put_that_was_cut_off_does_not_happen_after_the_crash(told: Told) -> None:
    before, photo = told.read(), told.photo()
    told.begin_put(photo)
    told.history.crash()
    told.get(before)
    told.get(photo)
    assert not told.is_allowed


def test_an_invalidation_that_was_cut_off_owes_nothing(told: Told) -> None:
    source = told.read()
    told.begin_invalidate()
    told.history.crash()
    told.get(source)
    assert told.is_allowed


def test_no_get_goes_back_behind_what_another_was_served(told: Told) -> None:
    older, newer = told.read(), told.read()
    told.get(newer)
    told.get(older)
    assert not told.is_allowed


def test_an_answer_that_is_kept_nowhere_ends_nothing(told: Told) -> None:
    older, newer = told.read(), told.read()
    told.get(newer, is_kept=False)
    told.get(older)
    assert told.is_allowed


def test_a_get_without_an_owner_lets_the_older_of_two_reads_land_last(told: Told) -> None:
    older, newer = told.read(), told.read()
    told.end(told.begin_get(owner=""), newer)
    told.get(older)
    assert told.is_allowed
    told.invalidate()
    told.get(newer)
    assert not told.is_allowed


def test_bytes_are_not_served_before_they_were_read(told: Told) -> None:
    getting = told.begin_get()
    told.end(getting, None)
    getting.source = told.read()
    assert not told.is_allowed


def test_an_absence_is_told_only_if_the_origin_said_so_since_the_last_change(told: Told) -> None:
    told.read(is_absent=True)
    told.get_absent()
    assert told.is_allowed
    told.put(told.photo())
    told.get_absent()
    assert not told.is_allowed


def test_an_owners_invalidation_leaves_what_came_from_another_prefix(told: Told) -> None:
    anns, bobs = told.read(COAT, "ann"), told.read(COAT, "bob")
    told.invalidate(Scope(ScopeKind.OWNER, "bob"))
    told.get(anns)
    assert told.is_allowed
    told.get(bobs)
    assert not told.is_allowed


def test_members_older_than_origin_after_are_not_served(told: Told) -> None:
    source = told.read(changed_ns=50)
    told.end(told.begin_get(needed_ns=50), source)
    assert told.is_allowed
    told.end(told.begin_get(needed_ns=51), source)
    assert not told.is_allowed


def test_two_fills_side_by_side_need_a_reason(told: Told) -> None:
    told.history.overlaps.append(Overlap(KEY, "ann", 1, 5))
    told.get(told.read())
    assert not told.is_allowed


def test_an_invalidation_is_a_reason_for_two_fills_side_by_side(told: Told) -> None:
    first = told.history.moment()
    invalidating = told.begin_invalidate()
    told.history.overlaps.append(Overlap(KEY, "ann", first, told.history.moment()))
    told.end(invalidating)
    assert told.is_allowed


def test_the_origins_error_is_no_answer_while_l2_holds_the_entry(told: Told) -> None:
    getting = told.begin_get()
    getting.was_held = True
    told.end_with_error(getting)
    assert not told.is_allowed


def test_a_change_during_a_get_may_keep_it_from_what_l2_holds(told: Told) -> None:
    getting = told.begin_get()
    getting.was_held = True
    told.invalidate()
    told.end_with_error(getting)
    assert told.is_allowed


def test_a_change_of_another_key_keeps_no_get_from_what_l2_holds(told: Told) -> None:
    getting = told.begin_get()
    getting.was_held = True
    told.invalidate(key_scope(COAT))
    told.end_with_error(getting)
    assert not told.is_allowed
