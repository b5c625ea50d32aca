"""`cachesvc stats --watch`: show what the daemon is doing right now.

A rate is the difference of a counter between two looks, divided by the time between the two
answers. A restarted daemon counts from zero, so its first look has no rates.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cachesvc.cli.conventions import output
from cachesvc.cli.stats.answer import namespaces_table, plain

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from cachesvc_client import CacheClient
    from cachesvc_proto.v1.cache_pb2 import StatsResponse

# How a Get ended, in the order of its cost.
ANSWERS = {
    "local_hits": "mapped by a worker",
    "memory_hits": "memory",
    "disk_hits": "disk",
    "origin_fills": "origin",
    "not_found": "not found",
    "failed": "failed",
}
WORK = {
    "fills": "fills",
    "failed_fills": "failed",
    "fenced_fills": "fenced",
    "coalesced_waiters": "coalesced waiters",
    "puts": "puts",
    "invalidations": "invalidations",
}


@dataclass(frozen=True, slots=True)
class Look:
    """One answer of the daemon. `taken_s` is monotonic, `rates` per second by counter's name."""

    answer: StatsResponse
    taken_s: float
    rates: dict[str, float] | None = None


def next_look(answer: StatsResponse, taken_s: float, last: Look | None) -> Look:
    """Return the look with its rates since `last`; no rates for a daemon's first look."""
    if last is None or answer.started_at != last.answer.started_at or taken_s <= last.taken_s:
        return Look(answer, taken_s)
    now, before = _counters(answer), _counters(last.answer)
    elapsed_s = taken_s - last.taken_s
    return Look(answer, taken_s, {name: (now[name] - before[name]) / elapsed_s for name in now})


def watch(client: CacheClient, interval_s: float, count: int | None, *, as_json: bool) -> None:
    """Show `count` looks, or looks until Ctrl-C, which is no failure."""
    looks = _looks(client, interval_s, count)
    try:
        if as_json:
            for look in looks:
                print(json.dumps(_line(look)), flush=True)
        else:
            _show(looks, interval_s)
    except KeyboardInterrupt:
        return


def screen(look: Look, interval_s: float) -> Group:
    """Return what to show of a look; 80 columns and 24 lines are enough for our own kinds."""
    from rich.console import Group

    answer = look.answer
    up = timedelta(seconds=int(time.time() - answer.started_at.seconds))
    return Group(
        f"cachesvc {answer.version}, up {up}; every {interval_s:g} s, Ctrl-C ends",
        "",
        _dense(_answers(look)),
        "",
        _dense(_tiers(look)),
        "",
        _dense(namespaces_table(answer)),
        _work(look),
    )


def _dense(table: Table) -> Table:
    """Return the table without title and lines, which would fill half of a small terminal."""
    table.title, table.box = "", None
    return table


def _looks(client: CacheClient, interval_s: float, count: int | None) -> Iterator[Look]:
    last: Look | None = None
    while count is None or count > 0:
        if last is not None:
            time.sleep(interval_s)  # the interval that the user asked for; nothing else runs
        last = next_look(client.stats(), time.monotonic(), last)
        yield last
        count = None if count is None else count - 1


def _show(looks: Iterator[Look], interval_s: float) -> None:
    from rich.live import Live

    # Redraw at each look, not four times a second.
    console = output.console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for look in looks:
            live.update(screen(look, interval_s), refresh=True)
    if not console.is_terminal:
        console.print()  # rich ends the last line on terminals only


def _line(look: Look) -> dict[str, object]:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    stats: dict[str, object] = plain(look.answer)
    return {"at": at, "per_second": look.rates, **stats}


def _counters(answer: StatsResponse) -> dict[str, int]:
    counters = {name: int(getattr(answer.requests, name)) for name in ANSWERS}
    counters |= {name: int(getattr(answer, name)) for name in WORK}
    for name, tier in (("memory", answer.memory), ("disk", answer.disk)):
        counters[f"{name}_evictions"] = tier.evictions
        counters[f"{name}_expirations"] = tier.expirations
    return counters


def _answers(look: Look) -> Table:
    table = output.table("Gets", ("Answered from", ">Per second", ">Share now", ">Since start"))
    gets_per_s = sum(look.rates[name] for name in ANSWERS) if look.rates else 0.0
    for name, text in ANSWERS.items():
        rate = look.rates[name] if look.rates else None
        share = f"{100 * rate / gets_per_s:.1f} %" if rate is not None and gets_per_s else "-"
        total = f"{getattr(look.answer.requests, name):,}"
        table.add_row(text, _rate(rate), share, total)
    return table


def _tiers(look: Look) -> Table:
    headings = ("Tier", ">Entries", ">Size", ">Limit", ">Full", ">Evicted/s", ">Expired/s")
    table = output.table("Tiers", headings)
    for name, tier in (("memory", look.answer.memory), ("disk", look.answer.disk)):
        full = f"{100 * tier.size_bytes / tier.max_bytes:.1f} %" if tier.max_bytes else "-"
        table.add_row(
            name,
            f"{tier.entries:,}",
            output.size_text(tier.size_bytes),
            output.size_text(tier.max_bytes),
            full,
            *(
                _rate(look.rates[f"{name}_{what}"] if look.rates else None)
                for what in ("evictions", "expirations")
            ),
        )
    return table


def _work(look: Look) -> str:
    answer, rates = look.answer, look.rates
    per_second = ", ".join(
        f"{text} {_rate(rates[name] if rates else None)}" for name, text in WORK.items()
    )
    return (
        f"Per second: {per_second}\n"
        f"Now: flights {answer.flights}, held by readers {output.size_text(answer.held_bytes)}; "
        f"ever: damaged {answer.damaged_entries}, undecodable {answer.decode_failures}"
    )


def _rate(per_second: float | None) -> str:
    return "-" if per_second is None else f"{per_second:,.1f}"
