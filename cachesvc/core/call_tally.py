"""How did the calls of each RPC end, and how long did they take?

Plain numbers that only the event loop changes, without a lock: a call costs 0.14 us here and
0.93 us with prometheus_client's counter and histogram, on the path of a worker's first Get.
`metrics.py` shows them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping


class RpcTally:
    """One RPC. `buckets[i]` has the calls of at most `bounds_s[i]`, the last one the rest."""

    __slots__ = ("bounds_s", "buckets", "by_code", "total_s")

    def __init__(self, codes: Iterable[str], bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.buckets = [0] * (len(bounds_s) + 1)
        self.by_code = dict.fromkeys(codes, 0)
        self.total_s = 0.0

    def count(self, code: str, seconds: float) -> None:
        """Count one call that ended with `code`, which is one of those given at the start."""
        self.by_code[code] += 1
        self.buckets[bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds


class CallTally:
    """Every RPC of one server. `outcomes` says for each code what it means for a caller."""

    def __init__(
        self, rpcs: Iterable[str], outcomes: Mapping[str, str], bounds_s: tuple[float, ...]
    ) -> None:
        self.outcomes = dict(outcomes)
        self.by_rpc = {rpc: RpcTally(self.outcomes, bounds_s) for rpc in rpcs}

    def by_outcome(self, rpc: str) -> dict[str, int]:
        """Return the calls of `rpc` by outcome, those that never happened included."""
        ended = dict.fromkeys(self.outcomes.values(), 0)
        for code, calls in self.by_rpc[rpc].by_code.items():
            ended[self.outcomes[code]] += calls
        return ended

    def by_code(self) -> dict[str, int]:
        """Return the calls of all RPCs by code."""
        return {
            code: sum(rpc.by_code[code] for rpc in self.by_rpc.values()) for code in self.outcomes
        }
