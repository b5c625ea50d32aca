"""Turns samples into a row: percentiles over all calls, and the spread of the rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NS_PER_MS = 1_000_000
# A larger spread of the rounds' medians says more of the machine than of the contender.
NOISY_SPREAD = 0.20


@dataclass(frozen=True)
class Row:
    """One contender's figures. `spread` is (highest - lowest) / median of the rounds' p50s."""

    name: str
    title: str
    calls: int
    p50_ms: float
    p99_ms: float
    round_p50s_ms: list[float]
    spread: float

    @property
    def is_noisy(self) -> bool:
        return self.spread > NOISY_SPREAD


def summarize(name: str, title: str, rounds: Sequence[Sequence[int]]) -> Row:
    """Return the row for samples in ns, one sequence for each round."""
    every = sorted(ns for times in rounds for ns in times)
    medians_ms = [statistics.median(times) / NS_PER_MS for times in rounds]
    return Row(
        name=name,
        title=title,
        calls=len(every),
        p50_ms=statistics.median(every) / NS_PER_MS,
        p99_ms=percentile(every, 0.99) / NS_PER_MS,
        round_p50s_ms=medians_ms,
        spread=(max(medians_ms) - min(medians_ms)) / statistics.median(medians_ms),
    )


def percentile(ordered: Sequence[int], share: float) -> int:
    """Return the smallest sample that at least `share` of all do not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
