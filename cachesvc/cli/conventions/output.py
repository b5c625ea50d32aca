"""Shows answers: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from cachesvc_client import EntryInfo

# Marks the heading of a column of numbers, which are aligned right.
RIGHT = ">"


def console() -> Console:
    """Return a console on stdout that prints values unchanged: no colours, no markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def table(title: str, headings: Iterable[str]) -> Table:
    """Return an empty table; a heading that starts with `>` is for numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        justify = "right" if heading.startswith(RIGHT) else "left"
        made.add_column(
            heading.removeprefix(RIGHT),
            justify=justify,  # type: ignore[arg-type]
            overflow="fold",
        )
    return made


def print_json(value: Any) -> None:
    """Print one JSON document: times in ISO 8601, durations in seconds."""
    print(json.dumps(value, indent=2, default=_plain))


def size_text(size_bytes: int) -> str:
    """Return a size as people read it: 10.2 MB."""
    from rich.filesize import decimal

    return decimal(size_bytes)


def time_text(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if moment else "-"


def info_of(info: EntryInfo) -> dict[str, Any]:
    """Return an entry's info for JSON."""
    return {
        "namespace": info.key.namespace,
        "id": info.key.id,
        "tier": info.tier.value,
        "size_bytes": info.size_bytes,
        "etag": info.etag,
        "generation": info.generation,
        "filled_at": info.filled_at,
        "expires_at": info.expires_at,
        "origin_time": info.origin_time,
        "kind_version": info.kind_version,
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
