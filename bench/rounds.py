"""Measures contenders side by side: A B C, A B C, ... so that drift affects all alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.contender import Unavailable
from bench.summary import Row, summarize
from bench.worker import Worker


@dataclass(frozen=True)
class Plan:
    """The number of each contender's calls: `calls` in each of `rounds`, after `warmup` untimed."""

    rounds: int
    calls: int
    warmup: int


@dataclass(frozen=True)
class Outcome:
    """One workload's rows, and the contenders that this machine cannot run, with reasons."""

    workload: str
    rows: list[Row]
    unavailable: dict[str, str]


def run(
    workload: str, names: Sequence[str], plan: Plan, progress: Callable[[str], None]
) -> Outcome:
    """Run all contenders on one workload. Raises WorkerFailed."""
    unavailable: dict[str, str] = {}
    with ExitStack() as stack:
        workers = []
        for name in names:
            progress(f"{workload}: starting {name}")
            try:
                workers.append(stack.enter_context(Worker(name, workload)))
            except Unavailable as exc:
                unavailable[name] = str(exc)
        samples: dict[str, list[list[int]]] = {worker.name: [] for worker in workers}
        for number in range(plan.rounds):
            progress(f"{workload}: round {number + 1} of {plan.rounds}")
            for worker in workers:
                samples[worker.name].append(worker.measure(plan.warmup, plan.calls))
        rows = [summarize(w.name, w.title, samples[w.name]) for w in workers]
    return Outcome(workload, rows, unavailable)
