"""The results of one part of the benchmark: rows of times, facts, and ratios with a bound."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.misses.turns import Row


@dataclass(frozen=True)
class Check:
    """A ratio that must stay at or below its bound (`at_most`), or reach it."""

    text: str
    value: float
    bound: float
    at_most: bool = True

    @property
    def holds(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass
class Finding:
    """One table. `facts` are counts, and times that were measured once."""

    title: str
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def show(console: Console, finding: Finding) -> None:
    """Print the finding as tables."""
    console.print(f"\n{finding.title}", markup=False)
    if finding.rows:
        table = Table("way", title_justify="left")
        for heading in ("median ms", "lowest", "highest", "turns"):
            table.add_column(heading, justify="right")
        for row in finding.rows:
            ordered = sorted(row.samples_ms)
            figures = (row.median_ms, ordered[0], ordered[-1])
            table.add_row(row.title, *(f"{ms:,.2f}" for ms in figures), str(len(ordered)))
        console.print(table)
    for name, value in finding.facts.items():
        console.print(f"{name}: {value}", markup=False)
    for check in finding.checks:
        sign, verdict = "<=" if check.at_most else ">=", "holds" if check.holds else "DOES NOT HOLD"
        console.print(
            f"{check.text}: {check.value:.2f} ({sign} {check.bound:g}): {verdict}", markup=False
        )


def write(path: Path, findings: list[Finding], machine: dict[str, str]) -> None:
    """Write the tables, with each turn's time."""
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "findings": [
            asdict(finding)
            | {"checks": [asdict(check) | {"holds": check.holds} for check in finding.checks]}
            for finding in findings
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
