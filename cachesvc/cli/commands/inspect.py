"""`cachesvc inspect`: show what the daemon knows of one key."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.options import DEFAULT_TIMEOUT_S, Json, Target, Timeout

if TYPE_CHECKING:
    from cachesvc_client import InspectedTier, Inspection


def inspect(
    namespace: Annotated[str, typer.Argument(help="For example human_upper_body, garment, text.")],
    id: Annotated[str, typer.Argument(help="A user_id or clothing_id.")],
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Show which tiers hold a key, since when and until when.

    The origin is not asked, and no access is counted. If no tier holds the key, the exit
    code is still 0.
    """
    with connected(target, timeout_s) as client:
        found = client.inspect(namespace, id)
    if as_json:
        output.print_json(_plain(found))
        return
    console = output.console()
    if found.filling:
        console.print("a fill is under way")
    if not found.tiers:
        console.print(f"{namespace}/{id} is in no tier")
        return
    headings = ("Tier", ">Size", ">Age", ">Expires in", ">Accesses", "Owner", "Filled at")
    table = output.table(f"{namespace}/{id}", headings)
    for held in found.tiers:
        table.add_row(*_row(held))
    console.print(table)


def _row(held: InspectedTier) -> tuple[str, ...]:
    return (
        held.tier.value,
        output.size_text(held.info.size_bytes),
        _whole_seconds(held.age),
        _whole_seconds(held.expires_in),
        str(held.accesses),
        held.owner_id or "-",
        output.time_text(held.info.filled_at),
    )


def _whole_seconds(time: timedelta) -> str:
    return str(timedelta(seconds=int(time.total_seconds())))


def _plain(found: Inspection) -> dict[str, Any]:
    return {
        "namespace": found.key.namespace,
        "id": found.key.id,
        "filling": found.filling,
        "tiers": [
            {
                **output.info_of(held.info),
                "tier": held.tier.value,
                "owner_id": held.owner_id,
                "age_s": held.age,
                "expires_in_s": held.expires_in,
                "accesses": held.accesses,
            }
            for held in found.tiers
        ],
    }
