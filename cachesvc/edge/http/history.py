"""Samples of the counters from the last minutes, so that a newly opened page has charts.

They are bounded and end with the process; Prometheus keeps a longer history.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, NamedTuple

from cachesvc import metrics
from cachesvc.core.clock import Clock
from cachesvc.core.tier import Tier
from cachesvc.edge import messages
from cachesvc.edge.statistics import Statistics
from cachesvc.metrics import Metrics

STEP_S = 5.0
# Ten minutes: as far back as the page's charts go.
MAX_SAMPLES = 120


class Sample(NamedTuple):
    """Counts since the start at one moment; `latency` has each tier's cumulative buckets."""

    wall_ns: int
    requests: dict[str, int]
    latency: dict[Tier, tuple[int, ...]]
    size_bytes: dict[Tier, int]


class History:
    """The last `MAX_SAMPLES` samples, the oldest first. Belongs to the event loop."""

    def __init__(self, statistics: Statistics, registry: Metrics) -> None:
        self._statistics = statistics
        self._metrics = registry
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)

    def step(self, wall_ns: int) -> None:
        """Take a sample."""
        stats = self._statistics.response()
        latency = {
            tier: tuple(count for _, count in self._metrics.request_seconds.read(tier).buckets)
            for tier in metrics.TIERS
        }
        size_bytes = {Tier.MEMORY: stats.memory.size_bytes, Tier.DISK: stats.disk.size_bytes}
        requests = messages.request_counts(stats.requests)
        self._samples.append(Sample(wall_ns, requests, latency, size_bytes))

    async def run(self, clock: Clock) -> None:
        """Take samples until cancelled."""
        while True:
            self.step(clock.read().wall_ns)
            await asyncio.sleep(STEP_S)

    def json(self) -> dict[str, Any]:
        """Return the samples; the buckets' bounds are those of /api/status."""
        return {
            "step_s": STEP_S,
            "samples": [
                {
                    "at": messages.moment(sample.wall_ns),
                    "requests": sample.requests,
                    "latency": sample.latency,
                    "size_bytes": sample.size_bytes,
                }
                for sample in self._samples
            ],
        }
