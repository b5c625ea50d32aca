"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_TIMEOUT_S = 30.0
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


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
    """Return the duration of `90`, `90s`, `15m`, `24h` or `7d`; always more than 0."""
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _UNIT_S[match[2]] if match else 0.0
    if seconds <= 0:
        raise typer.BadParameter("this is not a duration such as 90s, 15m, 24h or 7d")
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise typer.BadParameter("the duration is too long") from None


Target = Annotated[
    str | None,
    typer.Option(
        help="The daemon's socket or host:port. Default: the socket that "
        "CACHESVC_GRPC__SOCKET or CACHESVC_RUNTIME_DIR names.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds for the whole call.")]
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
