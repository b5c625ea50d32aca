"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cachesvc.core import units

DEFAULT_TIMEOUT_S = 30.0
LEAST_TIMEOUT_S = 0.001
_MAX_OPTION_S = 366 * 86400.0


class Category(StrEnum):
    """Which of a person's three prepared areas."""

    UPPER_BODY = "upper_body"
    LOWER_BODY = "lower_body"
    DRESSES = "dresses"


def parse_moment(text: str) -> datetime:
    """Return an ISO 8601 time. Refuse a time without a zone: hosts may disagree about it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            "this is not an ISO 8601 time such as 2026-03-01T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise typer.BadParameter("the time needs a zone, such as the Z of 2026-03-01T12:00:00Z")
    return moment


def parse_duration(text: str) -> timedelta:
    """Return the duration of `90`, `90s`, `1h30m`, `24h` or `7d`; always more than 0."""
    seconds = _seconds(text)
    if seconds <= 0:
        raise typer.BadParameter("a duration is more than 0")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise typer.BadParameter("the duration is too long") from None


def seconds_at_least(least_s: float) -> Callable[[str | float], float]:
    """Return a parser of times for options whose values are seconds: `90`, `90s`, `1h30m`."""

    def parse(text: str | float) -> float:
        seconds = _seconds(text) if isinstance(text, str) else text
        if not least_s <= seconds <= _MAX_OPTION_S:
            raise typer.BadParameter(
                f"the time has to be from {units.time_text(least_s)} to "
                f"{units.time_text(_MAX_OPTION_S)}"
            )
        return seconds

    return parse


def _seconds(text: str) -> float:
    try:
        return units.time_s(text)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None


Target = Annotated[
    str | None,
    typer.Option(
        help="The daemon's socket or host:port. Default: the socket that "
        "CACHESVC_GRPC__SOCKET or CACHESVC_RUNTIME_DIR names.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        parser=seconds_at_least(LEAST_TIMEOUT_S),
        metavar="TIME",
        help="Seconds for the whole call; or a time such as 90s, 5m.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Owner = Annotated[
    str, typer.Option(help="The owner, under whose prefix the origin keeps the garment.")
]
AreaOfPerson = Annotated[Category, typer.Option(help="The area of the person.")]
OriginAfter = Annotated[
    datetime | None,
    typer.Option(
        parser=parse_moment,
        metavar="TIME",
        help="Refuse objects that the origin last changed before this time (ISO 8601 with a zone).",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="The daemon's TOML file. CACHESVC_* variables win over it."
    ),
]
