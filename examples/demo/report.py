"""Prints what the demo measured, and the sum a reader can check."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

# The time of the diffusion model for one outfit: given, not measured.
DIFFUSION_S = 7.0
MAX_WIDTH = 100


class Request(NamedTuple):
    """One try-on: where its parts came from, and how long the call took."""

    outfit: str
    human: str
    garment: str
    text: str
    elapsed_ms: float


def make_console() -> Console:
    console = Console(highlight=False)
    console.width = min(console.width, MAX_WIDTH)
    return console


def print_requests(console: Console, title: str, requests: Sequence[Request]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("Outfit", "Person from", "Garment from", "Text from"):
        table.add_column(heading)
    table.add_column("Time", justify="right")
    for request in requests:
        parts = (_coloured(tier) for tier in (request.human, request.garment, request.text))
        table.add_row(request.outfit, *parts, _milliseconds(request.elapsed_ms))
    console.print(f"[bold]{title}[/bold]")
    console.print(table)


def print_sum(
    console: Console, cold: Sequence[Request], first: Sequence[Request], again: Sequence[Request]
) -> None:
    """Print ten outfits with and without the cache; `cold` is measured without it."""
    outfits = len(first)
    # Rounded before it is used: the reader multiplies what is printed.
    cold_s = round(statistics.median(request.elapsed_ms for request in cold) / 1e3, 4)
    first_s, again_s = (sum(r.elapsed_ms for r in round_) / 1e3 for round_ in (first, again))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("Inputs, measured here")
    table.add_column("+ diffusion, given", justify="right")
    table.add_column("Total", justify="right")
    rows = (
        ("without the cache", f"{outfits} x {cold_s:.4f} s", outfits * cold_s),
        ("with it, first round", "sum of act 1", first_s),
        ("with it, again", "sum of act 2", again_s),
    )
    diffusion_s = outfits * DIFFUSION_S
    for name, formula, inputs_s in rows:
        table.add_row(
            name,
            f"{formula} = {inputs_s:.4f} s",
            f"{outfits} x {DIFFUSION_S:g} s = {diffusion_s:g} s",
            f"{inputs_s + diffusion_s:.2f} s",
        )
    console.print(f"[bold]{outfits} outfits, with and without the cache[/bold]")
    console.print(table)
    console.print(
        f"{cold_s:.4f} s is the median of act 0, whose objects are read at once. A service that\n"
        "reads them one after the other waits longer."
    )


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value >= 1 else f"{value:.3f} ms"


def _coloured(tier: str) -> str:
    colour = {"memory": "green", "disk": "cyan", "origin": "yellow"}.get(tier, "white")
    return f"[{colour}]{tier}[/{colour}]"
