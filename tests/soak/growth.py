"""Does a series of samples grow, by how much for each call, and how certain is that?

The first half is left out: caches, pools and arenas fill up there. The rest is cut into BLOCKS of
equal numbers of samples, and a line is fitted to the blocks' means by least squares. Means are used
because neighbouring samples say nearly the same, and each would count as evidence. The interval is
Student's for 95 %, and is as wide as the blocks scatter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

BLOCKS = 12
# Student's t for 97.5 % and BLOCKS - 2 degrees of freedom.
_T = 2.228


@dataclass(frozen=True)
class Sample:
    """A process's memory and counts after that many calls; `tasks` is 0 if it reports none."""

    calls: int
    private_bytes: int
    descriptors: int
    threads: int
    tasks: int


@dataclass(frozen=True)
class Slope:
    """Bytes for each call, and half the width of the 95 % interval."""

    bytes_per_call: float
    margin: float

    def above(self, other: Slope) -> Slope:
        """Return the difference of two independent slopes."""
        return Slope(
            self.bytes_per_call - other.bytes_per_call, math.hypot(self.margin, other.margin)
        )


def slope_of(samples: Sequence[Sample]) -> Slope:
    """Return the growth of private memory over the second half of the calls.

    Raises ValueError if there are fewer than two samples for each block.
    """
    half = (samples[0].calls + samples[-1].calls) / 2
    second = [sample for sample in samples if sample.calls > half]
    size = len(second) // BLOCKS
    if size < 2:
        raise ValueError(f"{len(second)} samples of the second half are too few")
    blocks = [second[at * size : (at + 1) * size] for at in range(BLOCKS)]
    x = [fmean(sample.calls for sample in block) for block in blocks]
    y = [fmean(sample.private_bytes for sample in block) for block in blocks]
    x_mean, y_mean = fmean(x), fmean(y)
    spread = sum((a - x_mean) ** 2 for a in x)
    bytes_per_call = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / spread
    left = sum((b - y_mean - bytes_per_call * (a - x_mean)) ** 2 for a, b in zip(x, y, strict=True))
    return Slope(bytes_per_call, _T * math.sqrt(left / (BLOCKS - 2) / spread))
