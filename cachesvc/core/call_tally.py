"""How did the calls of each RPC end, and how long did they take?

Only the event loop changes the numbers, so they need no lock. Counting is on the path of a
worker's first Get: a call costs 0.14 us here and 0.93 us with prometheus_client's counter and
histogram. `metrics.py` shows the numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping


class RpcTally:
    """One RPC. `buckets[i]` has the calls up to `bounds_s[i]`, the last bucket all longer calls."""

    __slots__ = ("bounds_s", "buckets", "by_code", "total_s")

    def __init__(self, codes: Iterable[str], bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.buckets = [0] * (len(bounds_s) + 1)
        self.by_code = dict.fromkeys(codes, 0)
        self.total_s = 0.0

    def count(self, code: str, seconds: float) -> None:
        """Count one call that ended with `code`, which is one of `__init__`'s `codes`."""
        self.by_code[code] += 1
        self.buckets[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds


class CallTally:
    """Every RPC of one server. `outcomes` has, for each code, its meaning for a caller."""

    def __init__(
        self, rpcs: Iterable[str], outcomes: Mapping[str, str], bounds_s: tuple[float, ...]
    ) -> None:
        self.outcomes = dict(outcomes)
        self.by_rpc = {rpc: RpcTally(self.outcomes, bounds_s) for rpc in rpcs}

    def by_outcome(self, rpc: str) -> dict[str, int]:
        """Return the number of `rpc`'s calls by outcome; an outcome that never happened has 0."""
        ended = dict.fromkeys(self.outcomes.values(), 0)
        for code, calls in self.by_rpc[rpc].by_code.items():
            ended[self.outcomes[code]] += calls
        return ended

    def by_code(self) -> dict[str, int]:
        """Return the number of all RPCs' calls by code."""
        return {
            code: sum(rpc.by_code[code] for rpc in self.by_rpc.values()) for code in self.outcomes
        }
