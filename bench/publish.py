"""Writes a run's tables as Markdown, and the picture of docs/performance.md.

Run as `python -m bench.publish [RESULTS] > bench/results/hits.txt` from the repository's root:
prints the tables and writes `docs/images/local-delivery.png`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.patches import Patch

from bench.report import significant

RESULTS = Path(".bench/results.json")
PICTURE = Path("docs/images/local-delivery.png")
_OURS, _FLOOR, _PEER = "#0b6e4f", "#9aa0a6", "#c8553d"
# The other rows are parts of these, or other ways into asyncio: they are in the table only.
_DRAWN = (
    "floor",
    "local",
    "load-file",
    "ray",
    "floor+read",
    "local+read",
    "round-trip",
    "first-local",
    "vineyard",
    "memcached",
    "flight",
    "inline",
    "redis",
    "grpc-bytes",
    "grpc-protobuf",
    "v2-disk",
)


def tables(document: dict[str, Any]) -> str:
    """Return one table for p50 / p99 of each workload, and one for the claims."""
    workloads = document["workloads"]
    sizes = [f"{name} ({found['size_bytes'] / 1e6:.2f} MB)" for name, found in workloads.items()]
    lines = ["| row | way | " + " | ".join(sizes) + " |", "|---|---|" + "---:|" * len(sizes)]
    cells = {
        name: {
            row["name"]: f"{significant(row['p50_ms'])} / {significant(row['p99_ms'])}"
            for row in found["rows"]
        }
        for name, found in workloads.items()
    }
    titles = {row["name"]: row["title"] for found in workloads.values() for row in found["rows"]}
    for row, title in titles.items():
        figures = " | ".join(cells[name].get(row, "-") for name in workloads)
        lines.append(f"| `{row}` | {title} | {figures} |")
    lines += ["", "| claim | limit | measured | |", "|---|---:|---:|---|"]
    for verdict in document["verdicts"]:
        claim = verdict["claim"]
        slack = f" or {claim['slack_us']:g} us above" if claim["slack_us"] else ""
        lines.append(
            f"| `{'/'.join(claim['row'])}` against `{'/'.join(claim['against'])}`: "
            f"{claim['text']} | {claim['limit']:g} x{slack} | {verdict['ratio']:.2f} x, "
            f"{verdict['above_us']:+,.1f} us | {'holds' if verdict['holds'] else 'does not hold'} |"
        )
    return "\n".join(lines)


def draw(document: dict[str, Any], path: Path) -> None:
    """Draw a person's and a whole try-on's rows, p50 as bars and p99 as ticks, on a log scale."""
    mpl.use("agg")
    mpl.rcParams["font.size"] = 9
    figure, axes = pyplot.subplots(1, 2, figsize=(12, 6), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("human", "tryon"), strict=True):
        found = document["workloads"][name]
        by_name = {row["name"]: row for row in found["rows"]}
        rows = sorted(
            (by_name[row] for row in _DRAWN if row in by_name),
            key=lambda row: _place(document, row["name"]),
        )
        labels = [row["title"] for row in rows]
        p50s = [row["p50_ms"] for row in rows]
        bars = axis.barh(labels, p50s, color=[_color(row["name"]) for row in rows], height=0.7)
        axis.plot([row["p99_ms"] for row in rows], labels, "|", color="black", markersize=9)
        axis.bar_label(
            bars, [significant(p50) for p50 in p50s], label_type="edge", padding=-38, color="white"
        )
        axis.set_xscale("log")
        axis.set_xlim(left=0.002)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_xlabel("ms, log scale; bar: p50, tick: p99")
        axis.set_title(f"{name}: {found['size_bytes'] / 1e6:.1f} MB into torch tensors")
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    kinds = {"cachesvc": _OURS, "others": _PEER, "the floor, a bare round trip": _FLOOR}
    patches = [Patch(color=color, label=kind) for kind, color in kinds.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _place(document: dict[str, Any], name: str) -> float:
    """Return the row's p50 for a person: both halves of the picture have the same order."""
    rows = document["workloads"]["human"]["rows"]
    return next((float(row["p50_ms"]) for row in rows if row["name"] == name), 0.0)


def _color(name: str) -> str:
    if name.startswith(("local", "first-local", "inline")):
        return _OURS
    return _FLOOR if name.startswith(("floor", "round-trip")) else _PEER


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1] if len(sys.argv) > 1 else RESULTS).read_text())
    print(tables(measured))
    draw(measured, PICTURE)
