"""Is an entry held against the moment that the caller named, no more and no less?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.freshness import is_new_enough, needed_ns
from tests.support.clocks import START_NS

GRACE_NS = 2 * NS_PER_S
TIMES = st.integers(0, 2 * START_NS)


def test_without_a_moment_any_age_will_do() -> None:
    assert needed_ns(0, START_NS) == 0
    assert is_new_enough(1, 0, 0)


@given(after=TIMES, arrival=TIMES)
def test_a_moment_in_the_future_counts_as_the_arrival(after: int, arrival: int) -> None:
    assert needed_ns(after, arrival) == (arrival if after > arrival else after)


def test_the_grace_is_given_to_the_nanosecond() -> None:
    assert is_new_enough(START_NS - GRACE_NS, START_NS, GRACE_NS)
    assert not is_new_enough(START_NS - GRACE_NS - 1, START_NS, GRACE_NS)


@given(origin=TIMES, later=TIMES, needed=TIMES)
def test_a_newer_entry_is_never_refused_where_an_older_one_is_served(
    origin: int, later: int, needed: int
) -> None:
    if is_new_enough(origin, needed, GRACE_NS):
        assert is_new_enough(max(origin, later), needed, GRACE_NS)
