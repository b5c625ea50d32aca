"""Shows the outcomes as tables, and writes them as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import claims, machine, workloads
from bench.claims import Verdict
from bench.rounds import Outcome, Plan
from bench.summary import NOISY_SPREAD, Row


def ratio(row: Row, rows: Iterable[Row], baseline: str) -> float | None:
    """Return the row's p50 in units of the baseline's; None if the baseline did not run."""
    found = next((other for other in rows if other.name == baseline), None)
    return row.p50_ms / found.p50_ms if found else None


def show(console: Console, outcome: Outcome, baseline: str) -> None:
    """Print one workload's table, and reasons to doubt it."""
    size_bytes = workloads.build(outcome.workload).size_bytes
    table = Table(
        title=f"{outcome.workload}: {size_bytes:,} bytes of tensors", title_justify="left"
    )
    table.add_column("row", no_wrap=True)
    for heading in ("p50 ms", "p99 ms", f"x {baseline}", "spread"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("way")
    for row in outcome.rows:
        times = ratio(row, outcome.rows, baseline)
        table.add_row(
            row.name,
            significant(row.p50_ms),
            significant(row.p99_ms),
            "-" if times is None else significant(times),
            f"{row.spread:.0%}" + (" !" if row.is_noisy else ""),
            row.title,
        )
    console.print(table)
    for name, reason in outcome.unavailable.items():
        console.print(f"not run: {name}: {reason}")
    if noisy := [row.name for row in outcome.rows if row.is_noisy]:
        console.print(
            f"noisy: the p50s of the rounds differ by more than {NOISY_SPREAD:.0%} for "
            f"{', '.join(noisy)}; compare the ratios of several runs"
        )


def significant(value: float) -> str:
    """Return three significant digits: rows range from microseconds to tens of milliseconds."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def show_verdicts(console: Console, verdicts: list[Verdict]) -> None:
    """Print which of our claims this run supports."""
    for verdict in verdicts:
        claim = verdict.claim
        slack = f" or {claim.slack_us:g} us above" if claim.slack_us else ""
        console.print(
            f"{'holds' if verdict.holds else 'DOES NOT HOLD'}: {claim.text}: "
            f"{'/'.join(claim.row)} is {verdict.ratio:.2f} x {'/'.join(claim.against)} "
            f"({verdict.above_us:+,.1f} us; limit {claim.limit:g} x{slack})"
        )


def show_machine(console: Console, described: dict[str, str], plan: Plan) -> None:
    console.print(", ".join(f"{name} {value}" for name, value in described.items()))
    console.print(
        f"{plan.rounds} rounds, each {plan.warmup} untimed and {plan.calls} timed calls a row"
    )
    if warning := machine.load_warning(described):
        console.print(f"warning: {warning}")


def write(
    path: Path, outcomes: list[Outcome], described: dict[str, str], plan: Plan, baseline: str
) -> None:
    """Write the tables and the rounds behind them."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "plan": asdict(plan),
        "baseline": baseline,
        "verdicts": [
            asdict(verdict) | {"holds": verdict.holds} for verdict in claims.judge(outcomes)
        ],
        "workloads": {
            outcome.workload: {
                "size_bytes": workloads.build(outcome.workload).size_bytes,
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
