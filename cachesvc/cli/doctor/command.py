"""`cachesvc doctor`: show what would go wrong with these settings on this host, and the fix."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import ConfigFile, Json, seconds_at_least

if TYPE_CHECKING:
    from cachesvc.cli.doctor.findings import Finding

# For each of at most five requests to the origin.
DEFAULT_DEADLINE_S = 10.0


def doctor(
    object_key: Annotated[
        str, typer.Option("--object", metavar="KEY", help="Also read this object from the origin.")
    ] = "",
    deadline_s: Annotated[
        float,
        typer.Option(
            "--timeout",
            parser=seconds_at_least(0.1),
            metavar="TIME",
            help="Seconds for each question to the origin.",
        ),
    ] = DEFAULT_DEADLINE_S,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Check this host against the settings, and print a fix for each fault.

    Run it as the daemon's user with the daemon's settings; the daemon need not run.
    Nothing stays changed. Exit code 1: there is an error; 0: there are at most warnings.
    """
    from cachesvc import config as configuration
    from cachesvc.core.errors import ConfigError

    try:
        settings = configuration.load(config)
    except ConfigError as exc:
        fail(str(exc), ExitCode.USAGE)
    from cachesvc.cli.doctor.checks import findings
    from cachesvc.cli.doctor.findings import Level, Patient

    # The findings say what failed; a library's own traceback would come before them.
    logging.getLogger().addHandler(logging.NullHandler())
    found = list(findings(Patient(settings, object_key, deadline_s)))
    levels = Counter(finding.level for finding in found)
    if as_json:
        output.print_json(
            {
                "errors": levels[Level.ERROR],
                "warnings": levels[Level.WARNING],
                "findings": [
                    {
                        "check": finding.check,
                        "level": finding.level.value,
                        "message": finding.message,
                        "fix": finding.fix,
                    }
                    for finding in found
                ],
            }
        )
    else:
        _print(found)
    summary = f"errors: {levels[Level.ERROR]}, warnings: {levels[Level.WARNING]}"
    if levels[Level.ERROR]:
        fail(summary)
    if not as_json:
        print(f"\n{summary}")


def _print(found: list[Finding]) -> None:
    table = output.table("", ("Level", "Check", "Finding"))
    table.box = None
    for finding in found:
        fix = f"\nfix: {finding.fix}" if finding.fix else ""
        table.add_row(finding.level.value, finding.check, finding.message + fix)
    output.console().print(table)
