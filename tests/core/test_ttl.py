"""For how long is an entry served, and is the end exact?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.clock import NS_PER_S
from cachesvc.core.ttl import JITTER, MAX_TTL_S, expires_ns, jitter_factor
from tests.support.clocks import START_NS

HOUR_S = 3600.0
GENERATIONS = st.integers(1, 1 << 63)


def ttl_s(accesses: int, base_s: float = 24 * HOUR_S, generation: int = START_NS) -> float:
    end_ns = expires_ns(
        confirmed_ns=START_NS,
        base_s=base_s,
        explicit_s=None,
        accesses=accesses,
        generation=generation,
    )
    return (end_ns - START_NS) / NS_PER_S


@pytest.mark.parametrize(
    ("accesses", "factor"), [(0, 1), (9, 1), (10, 2), (49, 2), (50, 4), (10_000, 4)]
)
def test_both_steps_are_reached_at_their_accesses(accesses: int, factor: int) -> None:
    full_s = 24 * HOUR_S * factor * jitter_factor(START_NS)
    assert ttl_s(accesses) == pytest.approx(full_s)


@given(accesses=st.integers(0, 10**6), base_h=st.floats(0.01, 500), generation=GENERATIONS)
def test_a_ttl_is_at_most_96_hours_or_what_was_configured(
    accesses: int, base_h: float, generation: int
) -> None:
    assert ttl_s(accesses, base_h * HOUR_S, generation) <= max(MAX_TTL_S, base_h * HOUR_S)


def test_the_cap_is_reached() -> None:
    assert ttl_s(50, 30 * HOUR_S) == pytest.approx(MAX_TTL_S * jitter_factor(START_NS))
    assert ttl_s(0, 200 * HOUR_S) == pytest.approx(200 * HOUR_S * jitter_factor(START_NS))


@given(generation=GENERATIONS)
def test_jitter_is_downwards_and_fixed_for_a_generation(generation: int) -> None:
    factor = jitter_factor(generation)
    assert 1 - JITTER <= factor <= 1
    assert jitter_factor(generation) == factor


def test_jitter_spreads_entries_that_were_filled_together() -> None:
    factors = [jitter_factor(START_NS + number) for number in range(1000)]
    tenths = {int((factor - (1 - JITTER)) / JITTER * 10) for factor in factors}
    assert tenths == set(range(10))


@given(first=st.integers(0, 200), more=st.integers(0, 200), generation=GENERATIONS)
def test_another_access_never_shortens_a_ttl(first: int, more: int, generation: int) -> None:
    assert ttl_s(first, generation=generation) <= ttl_s(first + more, generation=generation)


@pytest.mark.parametrize("accesses", [0, 10, 50])
def test_an_explicit_ttl_is_neither_multiplied_nor_jittered(accesses: int) -> None:
    end_ns = expires_ns(
        confirmed_ns=START_NS,
        base_s=24 * HOUR_S,
        explicit_s=90.5,
        accesses=accesses,
        generation=START_NS,
    )
    assert end_ns == START_NS + int(90.5 * NS_PER_S)
