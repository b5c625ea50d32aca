"""`cachesvc warm`: fetch entries ahead of their use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.connection import connected
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import Category, Json, Target, Timeout
from cachesvc_format.namespaces import HUMAN_NAMESPACES

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

    If the command is stopped, the daemon goes on. Each key that is absent at the origin, or
    that fails, is named.
    Exit code 1: a key failed. Exit code 3: the origin lacks something that was asked for: a
    garment, a text, a --category, or, without --category, every area of the person.
    """
    garments = [_garment(text) for text in garment or ()]
    if not user and not garments:
        fail("--user or --garment is needed", ExitCode.USAGE)
    with connected(target, timeout_s) as client:
        steps = client.warm(
            user,
            categories=[one.value for one in category or ()],
            garments=garments,
            timeout_s=timeout_s,
        )
        missed, last = _follow(steps, quiet=as_json)
    failed = [failure for failure in missed if not failure.is_absent]
    absent = [failure for failure in missed if failure.is_absent]
    if as_json:
        counts = {"done": last.done, "total": last.total}
        output.print_json({**counts, "absent": _named(absent), "failed": _named(failed)})
    if failed:
        fail(f"{len(failed)} of {last.total} entries could not be fetched")
    wanted = absent if category else _without_optional(absent)
    if wanted:
        names = ", ".join("/".join(failure.key) for failure in wanted)
        fail(f"the origin does not have {names}", ExitCode.NOT_FOUND)


def _follow(
    steps: Iterable[WarmProgress], *, quiet: bool
) -> tuple[list[WarmFailure], WarmProgress]:
    """Show the steps as they come; return what is not cached now, and the last step."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    missed: list[WarmFailure] = []
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console(), disable=quiet) as bar:
        task = bar.add_task("warming")
        for step in steps:
            bar.update(task, completed=step.done, total=step.total)
            if step.failed:
                missed.append(step.failed)
                if not quiet:
                    said = "absent" if step.failed.is_absent else "failed"
                    bar.print(f"{'/'.join(step.failed.key)}: {said}: {step.failed.reason}")
    return missed, step


def _without_optional(absent: list[WarmFailure]) -> list[WarmFailure]:
    """Leave out areas of the person, unless the origin has none of them: few people have all."""
    areas = [one for one in absent if one.key.namespace in HUMAN_NAMESPACES.values()]
    if len(areas) == len(HUMAN_NAMESPACES):
        return absent
    return [one for one in absent if one not in areas]


def _named(missed: list[WarmFailure]) -> list[dict[str, Any]]:
    return [{**failure.key._asdict(), "reason": failure.reason} for failure in missed]


def _garment(text: str) -> tuple[str, str]:
    clothing_id, _, owner_id = text.partition(":")
    return clothing_id, owner_id
