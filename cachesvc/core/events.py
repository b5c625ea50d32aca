"""Which entries were evicted lately, and what was invalidated: for operators.

Pure: the times are handed in. Bounded; the counters in `metrics.py` count everything.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from cachesvc.core.keys import EntryKey
from cachesvc.core.leaving import Leaving
from cachesvc.core.scopes import Scope
from cachesvc.core.tier import Tier

# Each sort has its own limit, so that a busy L1 does not push the invalidations out.
MAX_EVENTS = 100


class Eviction(NamedTuple):
    """An entry left `tier` (`memory` or `disk`) to make room. `age_s` is since its fill."""

    wall_ns: int
    tier: Tier
    key: EntryKey
    cause: Leaving
    size_bytes: int
    age_s: float


class Invalidation(NamedTuple):
    """An invalidation became final."""

    wall_ns: int
    scope: Scope
    removed_count: int


@dataclass(frozen=True, slots=True)
class RecentEvents:
    """The last events of each sort, the oldest first."""

    evictions: deque[Eviction] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    invalidations: deque[Invalidation] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
