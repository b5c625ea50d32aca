"""Can a wrong clock make a record be dropped before its time has really passed? Promise 1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S, Now, ProvenTime
from tests.support.clocks import START_NS

YEAR_NS = 365 * 24 * 3600 * NS_PER_S
STEPS = st.integers(-YEAR_NS, YEAR_NS)


@given(at_boot_ns=STEPS, later_ns=STEPS, passed_ns=st.integers(0, YEAR_NS))
def test_no_step_of_a_clock_brings_it_ahead_of_what_has_passed(
    at_boot_ns: int, later_ns: int, passed_ns: int
) -> None:
    proven = ProvenTime(START_NS)
    boot_ns = START_NS + at_boot_ns
    assert proven.at(Now(boot_ns, boot_ns)) <= START_NS
    now = Now(boot_ns + later_ns + passed_ns, boot_ns + passed_ns)
    assert proven.at(now) <= START_NS + passed_ns


def test_it_passes_as_time_does_while_the_clocks_are_right() -> None:
    proven = ProvenTime(START_NS)
    assert proven.at(Now(START_NS + 5, START_NS + 5)) == START_NS
    assert proven.at(Now(START_NS + YEAR_NS + 5, START_NS + YEAR_NS + 5)) == START_NS + YEAR_NS


def test_without_a_known_past_it_begins_with_the_first_look() -> None:
    proven = ProvenTime(0)
    assert proven.at(Now(START_NS, START_NS)) == START_NS
    assert proven.at(Now(START_NS + YEAR_NS, START_NS + 5)) == START_NS + 5


def test_a_past_that_was_written_by_a_clock_that_was_ahead_proves_nothing() -> None:
    proven = ProvenTime(START_NS + YEAR_NS)
    assert proven.at(Now(START_NS, START_NS)) == START_NS
    assert proven.at(Now(START_NS + YEAR_NS, START_NS + 5)) == START_NS + 5
