"""Is an entry's time compared exactly with the moment that the caller named?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.freshness import ANY_AGE, Need, is_answer_new_enough, is_new_enough, need_of
from tests.support.clocks import START_NS

GRACE_NS = 2 * NS_PER_S
TIMES = st.integers(0, 2 * START_NS)


def is_stored_new_enough(origin_ns: int, need: Need, grace_ns: int) -> bool:
    """The rule for an entry of unknown read time."""
    return is_new_enough(origin_ns, need, grace_ns, read_ns=0)


def test_without_a_moment_any_age_will_do() -> None:
    assert need_of(0, START_NS) == ANY_AGE
    assert is_stored_new_enough(1, ANY_AGE, 0)
    assert is_stored_new_enough(2 * START_NS, ANY_AGE, 0)
    assert is_answer_new_enough(1, ANY_AGE, 0)


@given(after=TIMES, arrival=TIMES)
def test_a_moment_in_the_future_counts_as_the_arrival(after: int, arrival: int) -> None:
    assert Need(after, arrival).moment_ns == (arrival if after > arrival else after)


def test_the_grace_is_given_to_the_nanosecond() -> None:
    need = Need(START_NS, START_NS)
    for is_met in (is_stored_new_enough, is_answer_new_enough):
        assert is_met(START_NS - GRACE_NS, need, GRACE_NS)
        assert not is_met(START_NS - GRACE_NS - 1, need, GRACE_NS)


@given(named=st.integers(1, START_NS), ahead=st.integers(1, START_NS))
def test_a_stored_time_that_is_later_than_now_meets_no_moment(named: int, ahead: int) -> None:
    need = Need(named, START_NS)
    assert is_stored_new_enough(START_NS, need, GRACE_NS)
    assert not is_stored_new_enough(START_NS + ahead, need, GRACE_NS)


@given(named=st.integers(1, START_NS), ahead=st.integers(1, START_NS), read=TIMES)
def test_what_is_of_unknown_age_but_was_read_since_the_moment_meets_it(
    named: int, ahead: int, read: int
) -> None:
    meets = is_new_enough(START_NS + ahead, Need(named, START_NS), 0, read_ns=read)
    assert meets == (named <= read <= START_NS)


@given(origin=TIMES, later=TIMES, named=TIMES)
def test_a_newer_entry_is_never_refused_where_an_older_one_is_served(
    origin: int, later: int, named: int
) -> None:
    need, newer = Need(named, START_NS), max(origin, later)
    if is_answer_new_enough(origin, need, GRACE_NS):
        # Two moments that both lie in the future are compared with each other.
        is_known = newer <= START_NS or named <= START_NS
        assert not is_known or is_answer_new_enough(newer, need, GRACE_NS)
    if is_stored_new_enough(origin, need, GRACE_NS) and newer <= START_NS:
        assert is_stored_new_enough(newer, need, GRACE_NS)


@given(behind=st.integers(1, START_NS // 2))
def test_a_clock_that_is_behind_compares_the_origins_time_with_the_callers(behind: int) -> None:
    now_ns = START_NS - behind
    uploaded_ns = START_NS + GRACE_NS
    assert is_answer_new_enough(uploaded_ns, Need(uploaded_ns, now_ns), 0)
    assert not is_answer_new_enough(uploaded_ns, Need(uploaded_ns + 1, now_ns), 0)
