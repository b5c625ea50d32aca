"""`cachesvc invalidate`: invalidate entries."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import DEFAULT_TIMEOUT_S, Json, Target, Timeout, parse_moment


def invalidate(
    user: Annotated[str | None, typer.Option(help="The person's entries, of all areas.")] = None,
    clothing: Annotated[
        str | None, typer.Option(help="The garment's entry and its text's.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option(help="Every entry that was read from, or put for, this owner's prefix."),
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="NS/ID", help="One entry.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Every entry of a namespace.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Every entry.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask before invalidating everything.")
    ] = False,
    changed_at: Annotated[
        datetime | None,
        typer.Option(
            parser=parse_moment,
            metavar="TIME",
            help="When the source changed. Default: now. Puts of older sources are refused.",
        ),
    ] = None,
    erase: Annotated[
        bool, typer.Option("--erase", help="Also zero the bytes that workers have mapped.")
    ] = False,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_TIMEOUT_S,
) -> None:
    """Invalidate entries. After exit code 0, no later Get is served their bytes.

    Give exactly one of --user, --clothing, --owner, --key, --namespace, --everything.
    """
    given: dict[str, Any] = {
        "user_id": user,
        "clothing_id": clothing,
        "owner_id": owner,
        "key": None if key is None else _key(key),
        "namespace": namespace,
        "everything": everything or None,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if len(chosen) != 1:
        fail(
            "give exactly one of --user, --clothing, --owner, --key, --namespace, --everything",
            ExitCode.USAGE,
        )
    if everything and not yes:
        typer.confirm("Invalidate every entry in memory and on disk?", abort=True)
    with connected(target, timeout_s) as client:
        done = client.invalidate(**chosen, changed_at=changed_at, erase=erase)
    if as_json:
        output.print_json(done._asdict())
        return
    at = output.time_text(done.invalidated_at)
    output.console().print(f"invalidated at {at}; entries that were cached: {done.removed_count}")


def _key(text: str) -> tuple[str, str]:
    namespace, separator, id = text.partition("/")
    if not separator:
        fail("--key needs NAMESPACE/ID, such as garment/g1", ExitCode.USAGE)
    return namespace, id
