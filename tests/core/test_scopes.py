"""Does a scope cover what it names, and does a tombstone stay until it is lifted?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import BUILT_IN, Kinds, Subject
from cachesvc.core.scopes import (
    Scope,
    ScopeKind,
    Tombstones,
    key_scope,
    scopes_of,
    subject_scope,
)

KINDS = Kinds(BUILT_IN)
PERSON = EntryKey("human_upper_body", "alice")
GARMENT = EntryKey("garment", "shirt")
_IDS = st.sampled_from(["alice", "bob", "shirt", "coat"])
_KEYS = st.builds(EntryKey, st.sampled_from(KINDS.namespaces), _IDS)
_SCOPES = st.one_of(
    st.builds(lambda i: subject_scope(Subject.USER, i, KINDS), _IDS),
    st.builds(lambda i: subject_scope(Subject.CLOTHING, i, KINDS), _IDS),
    st.builds(key_scope, _KEYS),
    st.builds(lambda i: Scope(ScopeKind.OWNER, i), _IDS),
    st.builds(lambda n: Scope(ScopeKind.NAMESPACE, n), st.sampled_from(KINDS.namespaces)),
    st.just(Scope(ScopeKind.EVERYTHING)),
)


def test_a_user_is_all_categories_and_no_garment_of_the_same_id() -> None:
    scope = subject_scope(Subject.USER, "alice", KINDS)
    covered = [name for name in KINDS.namespaces if scope.covers(EntryKey(name, "alice"), "alice")]
    assert covered == ["human_upper_body", "human_lower_body", "human_dresses"]
    assert not scope.covers(EntryKey("human_upper_body", "alice2"), "alice")


def test_a_garment_is_its_text_too_whoever_owns_it() -> None:
    scope = subject_scope(Subject.CLOTHING, "shirt", KINDS)
    for namespace in ("garment", "text"):
        assert scope.covers(EntryKey(namespace, "shirt"), "bob")
        assert scope.covers(EntryKey(namespace, "shirt"), None)
    assert not scope.covers(EntryKey("human_dresses", "shirt"), "bob")


def test_an_owner_whose_bytes_are_not_known_yet_is_covered_to_be_safe() -> None:
    scope = Scope(ScopeKind.OWNER, "bob")
    assert scope.covers(GARMENT, "bob")
    assert scope.covers(GARMENT, None)
    assert not scope.covers(GARMENT, "alice")
    assert not scope.covers(GARMENT, "")


def test_a_key_is_that_key_only() -> None:
    scope = key_scope(EntryKey("garment", "a.b-c_d"))
    assert scope.covers(EntryKey("garment", "a.b-c_d"), None)
    assert not scope.covers(EntryKey("text", "a.b-c_d"), None)
    assert not scope.covers(EntryKey("garment", "a.b"), None)


@given(scope=_SCOPES, key=_KEYS)
def test_the_keys_that_a_scope_lists_are_those_it_covers(scope: Scope, key: EntryKey) -> None:
    listed = scope.keys()
    if listed is None:
        assert scope.kind in (ScopeKind.OWNER, ScopeKind.NAMESPACE, ScopeKind.EVERYTHING)
    else:
        assert scope.covers(key, "anybody") == (key in listed)


@given(scope=_SCOPES, key=_KEYS, owner=_IDS)
def test_a_change_is_found_again_by_every_key_it_covers(
    scope: Scope, key: EntryKey, owner: str
) -> None:
    assert scope.covers(key, owner) == (scope in scopes_of(key, owner, KINDS))


def test_overlapping_tombstones_are_lifted_one_by_one() -> None:
    tombstones = Tombstones()
    first = tombstones.add(key_scope(GARMENT), 1)
    second = tombstones.add(key_scope(GARMENT), 1)
    wide = tombstones.add(Scope(ScopeKind.EVERYTHING), 2)
    tombstones.lift(wide)
    assert not tombstones.covers(PERSON, "alice")
    tombstones.lift(first)
    assert tombstones.covers(GARMENT, None)
    tombstones.lift(second)
    assert not tombstones.covers(GARMENT, None)
    assert len(tombstones) == 0


def test_a_tombstone_is_lifted_once() -> None:
    tombstones = Tombstones()
    number = tombstones.add(key_scope(GARMENT), 1)
    tombstones.lift(number)
    with pytest.raises(KeyError):
        tombstones.lift(number)


def test_the_latest_change_under_way_is_told_to_what_it_covers_only() -> None:
    tombstones = Tombstones()
    tombstones.add(key_scope(GARMENT), 5)
    newest = tombstones.add(Scope(ScopeKind.OWNER, "bob"), 9)
    assert tombstones.last_change_ns(GARMENT, "bob") == 9
    assert tombstones.last_change_ns(GARMENT, "alice") == 5
    assert tombstones.last_change_ns(PERSON, "alice") == 0
    tombstones.lift(newest)
    assert tombstones.last_change_ns(GARMENT, "bob") == 5
