"""`cachesvc stats`: show what the daemon holds, and how it answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesvc.cli import output
from cachesvc.cli.connection import connected
from cachesvc.cli.exits import ExitCode, fail
from cachesvc.cli.options import DEFAULT_TIMEOUT_S, Json, Target, Timeout

if TYPE_CHECKING:
    from rich.table import Table

    from cachesvc_proto.v1.cache_pb2 import StatsResponse

DEFAULT_INTERVAL_S = 2.0
_COUNTERS = {
    "fills": "fills",
    "failed_fills": "failed fills",
    "fenced_fills": "fenced fills",
    "coalesced_waiters": "coalesced waiters",
    "flights": "flights now",
    "puts": "puts",
    "invalidations": "invalidations",
    "damaged_entries": "damaged entries",
    "decode_failures": "decode failures",
}


def stats(
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until Ctrl-C, with rates.")
    ] = False,
    interval_s: Annotated[
        float | None,
        typer.Option(
            "--interval",
            min=0.1,
            help=f"--watch: seconds between two looks. Default: {DEFAULT_INTERVAL_S:g}.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="--watch: end after so many looks.")
    ] = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Show what each tier and namespace holds, and how Gets were answered.

    With --watch --json, each look is one line.
    """
    if not watch and (interval_s is not None or count is not None):
        fail("--interval and --count belong to --watch", ExitCode.USAGE)
    with connected(target, timeout_s) as client:
        if watch:
            from cachesvc.cli import stats_watch

            stats_watch.watch(client, interval_s or DEFAULT_INTERVAL_S, count, as_json=as_json)
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
    counts = (f"{text} {getattr(answer, name)}" for name, text in _COUNTERS.items())
    console.print(", ".join(counts))
    console.print(
        f"not found {answer.requests.not_found}, failed {answer.requests.failed}, "
        f"held by readers after eviction {output.size_text(answer.held_bytes)}"
    )


def namespaces_table(answer: StatsResponse) -> Table:
    """Return what each namespace holds in both tiers."""
    headings = ("Namespace", ">In memory", ">of at most", ">Size", ">On disk", ">Size")
    table = output.table("Namespaces", headings)
    for namespace in answer.namespaces:
        table.add_row(
            namespace.namespace,
            str(namespace.memory_entries),
            str(namespace.memory_max_entries),
            output.size_text(namespace.memory_bytes),
            str(namespace.disk_entries),
            output.size_text(namespace.disk_bytes),
        )
    return table


def plain(value: Any) -> Any:
    """Return a message as JSON values. protobuf's JSON would have 64-bit counters as text."""
    if isinstance(value, (str, int, float)):
        return value
    if hasattr(value, "ToJsonString"):
        return value.ToJsonString()
    if hasattr(value, "DESCRIPTOR"):
        return {field.name: plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
    return [plain(element) for element in value]


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
