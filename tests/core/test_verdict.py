"""What is a row good for, and may an entry published in this life answer? Promises 1, 5 and 8."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.freshness import Need
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import GARMENT, HUMAN
from cachesvc.core.origin import OriginStamp
from cachesvc.core.verdict import (
    MAX_CLOCK_ERROR_NS,
    Ask,
    Use,
    is_current,
    is_said_new_enough,
    use_of,
)
from tests.support.clocks import START_NS
from tests.support.engine.entries import meta_of

KIND = replace(GARMENT, version="v2", stale_if_error_s=30.0)
KEY = EntryKey("garment", "shirt")
GRACE_NS = 2 * NS_PER_S
TTL_S = 60.0
END_NS = START_NS + int(TTL_S * NS_PER_S)
STALE_END_NS = END_NS + 30 * NS_PER_S
S, R, E = Use.SERVE, Use.REVALIDATE, Use.STALE_IF_ERROR


def stamps_of(owner: str) -> tuple[OriginStamp, ...]:
    keys = [KIND.object_key(field, KEY, owner) for field in KIND.fields]
    return tuple(OriginStamp(key, "etag", START_NS / NS_PER_S) for key in keys)


META = replace(
    meta_of(KEY, b"blob", owner="alice", explicit_ttl_s=TTL_S),
    kind_version="v2",
    stamps=stamps_of("alice"),
)


def ask(origin_after_ns: int = 0, arrival_ns: int = START_NS, owner: str = "alice") -> Ask:
    return Ask(Need(origin_after_ns, arrival_ns), GRACE_NS, owner)


# The difference from a row that may be served, and the use that is left of the row.
TABLE: dict[str, tuple[dict[str, Any], Use]] = {
    "nothing": ({}, S | R | E),
    "its last moment": ({"at_ns": END_NS - 1}, S | R | E),
    "its time is over": ({"at_ns": END_NS}, R | E),
    "the last moment while the origin is away": ({"at_ns": STALE_END_NS - 1}, R | E),
    "it is too old even while the origin is away": ({"at_ns": STALE_END_NS}, R),
    "a clock that jumped a year ahead": ({"at_ns": START_NS + 365 * 86400 * NS_PER_S}, R),
    "it is a minute ahead of the clock": ({"at_ns": START_NS - MAX_CLOCK_ERROR_NS}, S | R | E),
    "it is from the future": ({"at_ns": START_NS - MAX_CLOCK_ERROR_NS - 1}, R),
    "the call needs newer bytes": ({"ask": ask(START_NS + 3 * NS_PER_S, 2 * START_NS)}, R),
    "the grace is enough": ({"ask": ask(START_NS + GRACE_NS, 2 * START_NS)}, S | R | E),
    "another version of the kind": ({"kind_version": "v1"}, Use.NOTHING),
    "an invalidation is not durable yet": ({"invalidation_pending": True}, Use.NOTHING),
    "a Put brought it": ({"as_of_ns": START_NS}, S | E),
    "the origin would be asked for another owner": ({"ask": ask(owner="bob")}, S | E),
    "the origin would not be asked": ({"ask": ask(owner="")}, S | E),
    "its members were other objects": ({"stamps": stamps_of("bob")}, S | E),
    "one of its members is new in the kind": ({"stamps": stamps_of("alice")[:1]}, S | E),
}


@pytest.mark.parametrize("case", TABLE)
def test_what_a_row_is_good_for(case: str) -> None:
    changes, expected = TABLE[case]
    of_meta = {k: v for k, v in changes.items() if k in EntryMeta.__dataclass_fields__}
    found = use_of(
        Row(replace(META, **of_meta), 0, START_NS),
        KIND,
        changes.get("ask", ask()),
        changes.get("at_ns", START_NS),
        invalidation_pending=changes.get("invalidation_pending", False),
    )
    assert found == expected


def test_a_kind_that_forbids_stale_bytes_has_none() -> None:
    kind = replace(KIND, stale_if_error_s=0.0)
    found = use_of(Row(META, 0, START_NS), kind, ask(), END_NS, invalidation_pending=False)
    assert found == Use.REVALIDATE


def test_a_persons_row_of_another_owner_is_good_for_nothing() -> None:
    meta = meta_of(EntryKey("human_upper_body", "bob"), b"blob", owner="alice")
    row = Row(replace(meta, kind_version=HUMAN.version), 0, START_NS)
    found = use_of(row, HUMAN, ask(), START_NS, invalidation_pending=False)
    assert found == Use.NOTHING


def test_a_row_is_judged_by_the_expiry_that_the_catalog_has() -> None:
    """The sweeper uses the stored expiry; a TTL rule that has changed since may give another."""
    row = Row(META, 0, START_NS, stored_expires_ns=START_NS + 1)
    assert row.expires_ns != META.expires_ns(0)
    assert Use.SERVE not in use_of(row, KIND, ask(), START_NS + 1, invalidation_pending=False)


@pytest.mark.parametrize(
    ("at_ns", "asked", "answers"),
    [
        (END_NS - 1, ask(), True),
        (END_NS, ask(), False),
        (START_NS, ask(START_NS + 3 * NS_PER_S, 2 * START_NS), False),
    ],
)
def test_what_this_life_published_answers_until_it_expires_or_is_too_old(
    at_ns: int, asked: Ask, answers: bool
) -> None:
    assert is_current(META, END_NS, asked, at_ns) is answers


def test_an_answer_of_the_origin_is_held_against_the_call_too() -> None:
    assert is_said_new_enough(META, ask(START_NS + GRACE_NS, 2 * START_NS))
    assert not is_said_new_enough(META, ask(START_NS + GRACE_NS + 1, 2 * START_NS))
