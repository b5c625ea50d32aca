"""`cachesvc warm`: fetch entries ahead of their use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import Category, Json, Target, Timeout

if TYPE_CHECKING:
    from cachesvc_client import WarmFailure, WarmProgress

# Many keys, each a read of several objects; the daemon goes on if the client stops.
DEFAULT_WARM_TIMEOUT_S = 300.0


def warm(
    user: Annotated[str, typer.Option(help="The person's id.")] = "",
    category: Annotated[
        list[Category] | None,
        typer.Option(help="An area of the person; may be repeated. Default: all three."),
    ] = None,
    garment: Annotated[
        list[str] | None,
        typer.Option(metavar="ID[:OWNER]", help="A garment and its text; may be repeated."),
    ] = None,
    as_json: Json = False,
    target: Target = None,
    timeout_s: Timeout = DEFAULT_WARM_TIMEOUT_S,
) -> None:
    """Fetch a person and garments ahead of their use, and show the progress.

    If the command is stopped, the daemon goes on. Each key that fails is named; then the exit
    code is 1.
    """
    garments = [_garment(text) for text in garment or ()]
    if not user and not garments:
        fail("--user or --garment is needed", ExitCode.USAGE)
    with connected(target, timeout_s) as client:
        steps = client.warm(user, categories=category or (), garments=garments, timeout_s=timeout_s)
        failures, last = _follow(steps, quiet=as_json)
    if as_json:
        named = [{**failure.key._asdict(), "reason": failure.reason} for failure in failures]
        output.print_json({"done": last.done, "total": last.total, "failed": named})
    if failures:
        fail(f"{len(failures)} of {last.total} entries could not be fetched")


def _follow(
    steps: Iterable[WarmProgress], *, quiet: bool
) -> tuple[list[WarmFailure], WarmProgress]:
    """Show the steps as they come; return the failures and the last step."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    failures: list[WarmFailure] = []
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console(), disable=quiet) as bar:
        task = bar.add_task("warming")
        for step in steps:
            bar.update(task, completed=step.done, total=step.total)
            if step.failed:
                failures.append(step.failed)
                if not quiet:
                    bar.print(f"{'/'.join(step.failed.key)}: {step.failed.reason}")
    return failures, step


def _garment(text: str) -> tuple[str, str]:
    clothing_id, _, owner_id = text.partition(":")
    return clothing_id, owner_id
