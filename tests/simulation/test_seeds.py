"""Promises 1, 2, 3, 4, 5, 8 and 9 in schedules of any order: is any seed's history forbidden?

Each seed is a host with a few lives between crashes, callers, uploads, outages of the origin
and a full disk, in an order of its own. See docs/testing.md; `make simulate SEEDS=n` runs others.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.run import run_seed, summary_of

QUICK_SEEDS = 250
ALL_SEEDS = 10_000


def run_seeds(seeds: range) -> Counter[str]:
    """Run them, and return what happened in all of them together."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        outcome = run_seed(seed)
        assert outcome.problems == [], f"make simulate SEED={seed}"
        counts += outcome.counts
    return counts


@pytest.mark.timeout(180)
def test_a_few_hundred_schedules_break_no_promise() -> None:
    counts = run_seeds(range(QUICK_SEEDS))
    happened = {
        "get",
        "put",
        "invalidate",
        "lives",
        "origin reads",
        "refused writes",
        "left or cut off",
        "circuits opened",
        "refused by the circuit",
        "served stale",
    }
    assert happened <= set(counts)
    assert counts["lives"] > QUICK_SEEDS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_schedules_break_no_promise() -> None:
    counts = run_seeds(range(ALL_SEEDS))
    print(summary_of(ALL_SEEDS, counts))  # noqa: T201 - the figures of the run
