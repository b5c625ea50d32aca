"""`cachesvc config`: which settings are in force, and where does each come from?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.exits import ExitCode, fail, warn
from cachesvc.cli.conventions.options import ConfigFile, Json
from cachesvc.core import units


def config(config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Check the settings and show those in force, with secrets masked.

    Warnings about variables that are no settings go to stderr. Exit code 2: a setting cannot work;
    0: all can.
    """
    from cachesvc import config as configuration
    from cachesvc.config import messages, sources
    from cachesvc.core.errors import ConfigError
    from cachesvc.edge import tls_files

    try:
        loaded = configuration.load(config_file)
        tls_files.check_all(loaded)
        in_file = sources.read_toml(config_file, "--config") if config_file else {}
    except ConfigError as exc:
        fail(str(exc), ExitCode.USAGE)
    for stranger in sources.strangers(configuration.Settings, os.environ):
        warn(str(stranger))
    rows = [
        (
            path,
            messages.masked(path, value),
            sources.source_of(path, os.environ, in_file),
        )
        for path, value in _leaves(loaded.model_dump(mode="json", by_alias=True))
    ]
    if as_json:
        output.print_json(
            {
                ".".join(path): {"value": value, "from": _kind(source)}
                for path, value, source in rows
            }
        )
        return
    table = output.table("", ("Setting", "Value", "From"))
    table.columns[0].no_wrap = True
    for path, value, source in rows:
        where = str(config_file) if source == sources.FILE else source
        table.add_row(".".join(path), value_text(path[-1], value), where)
    output.console().print(table)


def value_text(name: str, value: Any) -> str:
    """Return the value in a unit that people read, as the file and variables take it."""
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        for suffix, unit_s in (("_s", 1.0), ("_ms", 0.001), ("_hours", 3600.0)):
            if name.endswith(suffix):
                return units.time_text(value * unit_s)
        if name.endswith("_bytes"):
            return units.size_text(int(value))
    return json.dumps(value, ensure_ascii=False)


def _kind(source: str) -> str:
    from cachesvc.config.sources import DEFAULT, FILE

    return source if source in (DEFAULT, FILE) else "environment"


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Any]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value
