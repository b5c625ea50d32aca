"""Times several ways of doing one thing in turns, A B C, A B C, ...: drift affects all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

S_TO_MS = 1000.0


@dataclass(frozen=True)
class Row:
    """One way, and the times of its turns."""

    title: str
    samples_ms: list[float]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)


@dataclass(frozen=True)
class Way:
    """`call` is timed. `before` and `after` are not: they make the call cold, and clean up."""

    title: str
    call: Callable[[], Any]
    before: Callable[[], Any] = lambda: None
    after: Callable[[], Any] = lambda: None


def take(ways: Mapping[str, Way], rounds: int, warmup: int = 1) -> dict[str, Row]:
    """Give each way its turn in each round; `warmup` more rounds come first, untimed."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warmup + rounds):
        for name, way in ways.items():
            took_ms = _time_one(way)
            if number >= warmup:
                samples[name].append(took_ms)
    return {name: Row(way.title, samples[name]) for name, way in ways.items()}


def _time_one(way: Way) -> float:
    way.before()
    # The garbage of other turns must not be collected during this one.
    gc.collect()
    started_s = time.perf_counter()
    result = way.call()
    took_ms = (time.perf_counter() - started_s) * S_TO_MS
    # Freeing tens of megabytes is not timed, for any way.
    del result
    way.after()
    return took_ms
