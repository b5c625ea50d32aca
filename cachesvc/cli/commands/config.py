"""`cachesvc config`: which settings are in force, and where does each come from?"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from cachesvc.cli.conventions import output
from cachesvc.cli.conventions.exits import ExitCode, fail
from cachesvc.cli.conventions.options import ConfigFile, Json

MASK = "***"
# Up to the last @: a password may contain @.
_USERINFO = re.compile(r"(?<=://)\S*(?=@)")
_SECRET_NAME = re.compile(r"secret|password|token|credential", re.IGNORECASE)


def config(config_file: ConfigFile = None, as_json: Json = False) -> None:
    """Check the settings and show those in force, with secrets masked."""
    from cachesvc import config as configuration
    from cachesvc.core.errors import ConfigError
    from cachesvc.edge import tls_files

    try:
        loaded = configuration.load(config_file)
        tls_files.check_all(loaded)
    except ConfigError as exc:
        fail(str(exc), ExitCode.USAGE)
    in_file = tomllib.loads(config_file.read_text()) if config_file else {}
    rows = [
        (".".join(path), masked(path, value), _source(path, in_file))
        for path, value in _leaves(loaded.model_dump(mode="json", by_alias=True))
    ]
    if as_json:
        output.print_json({name: {"value": value, "from": source} for name, value, source in rows})
        return
    table = output.table("", ("Setting", "Value", "From"))
    for name, value, source in rows:
        table.add_row(name, _toml(value), source)
    output.console().print(table)


def masked(path: tuple[str, ...], value: Any) -> Any:
    """Return the value with its secrets masked."""
    if not isinstance(value, str) or not value:
        return value
    return MASK if _SECRET_NAME.search(path[-1]) else _USERINFO.sub(MASK, value)


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[Any]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _source(path: tuple[str, ...], in_file: Any) -> str:
    """Return `environment`, `file` or `default`: variables win over the file."""
    from cachesvc.config_access import ENV_PREFIX

    variables = {name.upper() for name in os.environ}
    # A variable may also hold a whole section as JSON.
    starts = (path[: length + 1] for length in range(len(path)))
    if any((ENV_PREFIX + "__".join(start)).upper() in variables for start in starts):
        return "environment"
    for name in path:
        if not isinstance(in_file, Mapping) or name not in in_file:
            return "default"
        in_file = in_file[name]
    return "file"


def _toml(value: Any) -> str:
    if value is None:
        return "-"
    return json.dumps(value, ensure_ascii=False)
