"""`cachesvc stats`: show what the daemon holds, and how it answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import (
    DEFAULT_TIMEOUT_S,
    Json,
    Target,
    Timeout,
    seconds_at_least,
)
from cachesvc.cli.stats.answer import namespaces_table, plain

if TYPE_CHECKING:
    from rich.table import Table

    from cachesvc_proto.v1.cache_pb2 import StatsResponse

DEFAULT_INTERVAL_S = 2.0
# One line of the text each.
_FILLS = {
    "fills": "fills",
    "failed_fills": "failed fills",
    "fenced_fills": "fenced fills",
    "coalesced_waiters": "coalesced waiters",
    "flights": "flights now",
}
_CHANGES = {
    "puts": "puts",
    "invalidations": "invalidations",
    "damaged_entries": "damaged entries",
    "decode_failures": "decode failures",
}


def stats(
    keep_looking: Annotated[
        bool, typer.Option("--watch", help="Repeat, with rates, until Ctrl-C.")
    ] = False,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval",
            parser=seconds_at_least(0.1),
            metavar="TIME",
            help=f"With --watch: seconds between two updates. Default: {DEFAULT_INTERVAL_S:g}.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="With --watch: end after that many updates.")
    ] = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Show what each tier and namespace holds, and how Gets were answered.

    With --watch --json, each update is one line.
    """
    if not keep_looking and (interval_s is not None or count is not None):
        fail("--interval and --count need --watch", ExitCode.USAGE)
    with connected(target, timeout_s) as client:
        if keep_looking:
            from cachesvc.cli.stats import watch

            watch.watch(client, interval_s or DEFAULT_INTERVAL_S, count, as_json=as_json)
            return
        answer = client.stats()
    if as_json:
        output.print_json(plain(answer))
        return
    console = output.console()
    started = answer.started_at.ToDatetime()
    console.print(f"cachesvc {answer.version}, started {started:%Y-%m-%d %H:%M:%S} UTC\n")
    console.print(_tiers(answer))
    console.print(namespaces_table(answer))
    for line in (_FILLS, _CHANGES):
        console.print(", ".join(f"{text} {getattr(answer, name)}" for name, text in line.items()))
    console.print(
        f"Gets not found {answer.requests.not_found}, failed {answer.requests.failed}; "
        f"held by readers after eviction {output.size_text(answer.held_bytes)}"
    )


def _tiers(answer: StatsResponse) -> Table:
    headings = ("Tier", ">Served", ">Entries", ">Size", ">Limit", ">Evicted", ">Expired")
    table = output.table("Tiers", headings)
    served = {"memory": answer.requests.memory_hits, "disk": answer.requests.disk_hits}
    for name, tier in (("memory", answer.memory), ("disk", answer.disk)):
        table.add_row(
            name,
            str(served[name]),
            str(tier.entries),
            output.size_text(tier.size_bytes),
            output.size_text(tier.max_bytes),
            str(tier.evictions),
            str(tier.expirations),
        )
    table.add_row("origin", str(answer.requests.origin_fills))
    return table
