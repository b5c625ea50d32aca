"""Is this build slower than the one before? A ratio counts only beside an A/A pair.

The older build runs twice. The distance of its two copies, round by round, is the effect of this
machine on two equal builds; the newer build is judged by that distance.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.summary import NS_PER_MS, percentile

BUILDS = ("before", "before again", "now")


@dataclass(frozen=True)
class Verdict:
    """The verdict on one kind of Get. Times are in ms over all calls; ratios are of the rounds'
    medians, to `before`.
    """

    way: str
    p50s_ms: dict[str, float]
    p99s_ms: dict[str, float]
    aa_ratios: list[float]
    ratios: list[float]

    @property
    def ratio(self) -> float:
        """The middle round's ratio of this build to the mean of both older copies."""
        return statistics.median(self.ratios)

    @property
    def aa_ratio(self) -> float:
        """The middle round's ratio of the older build's second copy to its first."""
        return statistics.median(self.aa_ratios)

    @property
    def aa_spread(self) -> tuple[float, float]:
        """The range of the ratios of the older build's two copies, in nine rounds of ten.

        Chance decides which copy is called A, so each ratio also counts as its inverse.
        """
        both = sorted([*self.aa_ratios, *(1 / ratio for ratio in self.aa_ratios)])
        return (
            both[max(0, round(len(both) * 0.1) - 1)],
            both[min(len(both) - 1, round(len(both) * 0.9))],
        )

    @property
    def holds(self) -> bool:
        """Return whether this build's ratio is no larger than that range allows."""
        return self.ratio <= self.aa_spread[1]


def judge(way: str, samples: Mapping[str, Sequence[Sequence[int]]]) -> Verdict:
    """Return the verdict for samples in ns, one sequence for each round, by build."""
    before, again, now = (
        [statistics.median(times) for times in samples[build]] for build in BUILDS
    )
    every = {build: sorted(ns for times in samples[build] for ns in times) for build in BUILDS}
    return Verdict(
        way,
        {build: statistics.median(times) / NS_PER_MS for build, times in every.items()},
        {build: percentile(times, 0.99) / NS_PER_MS for build, times in every.items()},
        [b / a for a, b in zip(before, again, strict=True)],
        [2 * n / (a + b) for a, b, n in zip(before, again, now, strict=True)],
    )
