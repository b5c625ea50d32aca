"""Shows the outcomes as tables, and writes them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import machine, workloads
from bench.rounds import Outcome, Plan
from bench.summary import NOISY_SPREAD, Row


def ratio(row: Row, rows: Iterable[Row], baseline: str) -> float | None:
    """Return the row's p50 in units of the baseline's; None if the baseline did not run."""
    found = next((other for other in rows if other.name == baseline), None)
    return row.p50_ms / found.p50_ms if found else None


def show(console: Console, outcome: Outcome, baseline: str) -> None:
    """Print one workload's table and what to doubt about it."""
    size_bytes = workloads.build(outcome.workload).size_bytes
    table = Table(
        title=f"{outcome.workload}: {size_bytes:,} bytes of tensors", title_justify="left"
    )
    table.add_column("way")
    for heading in ("p50 ms", "p99 ms", f"x {baseline}", "spread"):
        table.add_column(heading, justify="right")
    for row in outcome.rows:
        times = ratio(row, outcome.rows, baseline)
        table.add_row(
            row.title,
            f"{row.p50_ms:.3f}",
            f"{row.p99_ms:.3f}",
            "-" if times is None else _significant(times),
            f"{row.spread:.0%}" + (" !" if row.is_noisy else ""),
        )
    console.print(table)
    for name, reason in outcome.unavailable.items():
        console.print(f"not run: {name}: {reason}")
    if noisy := [row.name for row in outcome.rows if row.is_noisy]:
        console.print(
            f"noisy: the p50 of the rounds lies more than {NOISY_SPREAD:.0%} apart for "
            f"{', '.join(noisy)}; compare the ratios of several runs"
        )


def _significant(value: float) -> str:
    """Three significant digits: ratios reach from thousandths to tens."""
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def show_machine(console: Console, described: dict[str, str], plan: Plan) -> None:
    console.print(", ".join(f"{name} {value}" for name, value in described.items()))
    console.print(
        f"{plan.rounds} rounds, each {plan.warmup} untimed and {plan.calls} timed calls a row"
    )
    if warning := machine.load_warning():
        console.print(f"warning: {warning}")


def write(
    path: Path, outcomes: list[Outcome], described: dict[str, str], plan: Plan, baseline: str
) -> None:
    """Write everything that was shown, and the rounds behind it."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "plan": asdict(plan),
        "baseline": baseline,
        "workloads": {
            outcome.workload: {
                "rows": [
                    asdict(row) | {"ratio": ratio(row, outcome.rows, baseline)}
                    for row in outcome.rows
                ],
                "unavailable": outcome.unavailable,
            }
            for outcome in outcomes
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
