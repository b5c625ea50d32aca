"""Where do settings come from: the TOML file and the variables, and which names are not ours?"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_settings import EnvSettingsSource

from cachesvc.config.messages import CLOSE, named, nearest, variable_of
from cachesvc.config.values import ENV_PREFIX
from cachesvc.core.errors import ConfigError

# The client's own variables; a command has them beside the daemon's.
_OF_CLIENTS = ("TLS_CA", "TLS_CERT", "TLS_KEY", "TOKEN", "DAEMON_USER")
_AT = re.compile(r"\(at ([^()]*)\)$")
# A text with a unit is a text: TOML reads a bare 2GiB, or a bare word, as a mistake.
_TOML_HINT = 'a text, also a size such as "2GiB", stands in quotes; a list in [ ]'
# Kubernetes gives the pods of a namespace such variables for each Service in it.
_LINK_HOST = "_service_host"
_LINK = re.compile(r".*_port_[0-9]+_(tcp|udp|sctp)(_(proto|port|addr))?")
_LINK_URL = re.compile(r"(tcp|udp|sctp)://")
# Sources of a value, beside the name of its variable.
FILE, DEFAULT = "file", "default"
# A variable that begins so is likely meant for us.
_LIKE_OUR_PREFIX = "cach"
_VERY_CLOSE = 0.9


class Variables(EnvSettingsSource):
    """Reads the variables; a value that is not the JSON it should be is refused like any other."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
            return value


@dataclass(frozen=True, slots=True)
class Stranger:
    """A variable that looks like a setting and is none, and the variable that it is most like."""

    name: str
    nearest: str | None

    def __str__(self) -> str:
        hint = f"; the nearest setting is {self.nearest}" if self.nearest else ""
        return f"{self.name} is no setting and is ignored{hint}"


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises ConfigError, which begins with `what`."""
    try:
        if not path.is_file():
            raise ConfigError(f"{what}: {path} {_not_a_file(path)}")
        return tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        raise ConfigError(f"{what}: {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{what}: {path} is not valid TOML: byte {exc.start} is not UTF-8"
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        at = _AT.search(str(exc))
        where = f", {at[1]}" if at else ""
        raise ConfigError(f"{what}: {path} is not valid TOML{where}: {_TOML_HINT}") from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{what}: {path} is not valid TOML: it nests too deep") from exc


def _not_a_file(path: Path) -> str:
    return "is not a regular file" if path.exists() else "does not exist"


def names_of(model: type[BaseModel], *above: str) -> Iterator[str]:
    """Yield the dotted name of each setting and section, as the file spells it."""
    for name, field in model.model_fields.items():
        path = (*above, field.alias or name)
        yield ".".join(path)
        kinds = (field.annotation, *get_args(field.annotation))
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from names_of(kind, *(path if kind is field.annotation else (*path, "NAME")))


def strangers(settings: type[BaseModel], variables: Mapping[str, str]) -> list[Stranger]:
    """Return the variables that look like settings and are none.

    A name inside a section that is no setting is an error of `load` already.
    """
    ours = {f"{ENV_PREFIX}{name}".upper() for name in (*settings.model_fields, *_OF_CLIENTS)}
    known = [*ours, *(variable_of(name.split(".")) for name in names_of(settings))]
    found = []
    for name in sorted(variables):
        upper = name.upper()
        if not name.lower().startswith(_LIKE_OUR_PREFIX):
            continue
        section = ENV_PREFIX + upper.removeprefix(ENV_PREFIX).partition("__")[0]
        is_ours = upper.startswith(ENV_PREFIX)
        if is_ours and (section in ours or is_service_link(name, variables)):
            continue
        near = nearest(upper, map(str.lower, known), CLOSE if is_ours else _VERY_CLOSE)
        if is_ours or ("__" in name and near is not None):
            found.append(Stranger(name, near.upper() if near else None))
    return found


def service_links(variables: Mapping[str, str]) -> list[str]:
    """Return the variables that Kubernetes makes for Services whose names begin as ours do."""
    ours = (name for name in variables if name.upper().startswith(ENV_PREFIX))
    return sorted(name for name in ours if is_service_link(name, variables))


def is_service_link(name: str, variables: Mapping[str, str]) -> bool:
    """Return whether Kubernetes or Docker made this variable for a Service, such as `cachesvc`."""
    lower = name.lower()
    if lower.endswith(_LINK_HOST) or _LINK.fullmatch(lower):
        return True
    if lower.endswith("_port") and _LINK_URL.match(variables[name]):
        return True
    service, is_port, _ = lower.partition("_service_port")
    return bool(is_port) and f"{service}{_LINK_HOST}".upper() in variables


def source_of(path: Sequence[str], variables: Mapping[str, str], in_file: Any) -> str:
    """Return the variable's name as it is spelled, FILE or DEFAULT: variables win."""
    spelled = {name.upper(): name for name in variables}
    # A variable may also hold a whole section as JSON.
    for length in range(len(path), 0, -1):
        name = spelled.get(variable_of(path[:length]))
        if name and _has(variables[name], path[length:]):
            return name
    for name in path:
        if not isinstance(in_file, Mapping) or name not in in_file:
            return DEFAULT
        in_file = in_file[name]
    return FILE


def _has(text: str, path: Sequence[str]) -> bool:
    """Return whether the JSON of a section has a setting; True for the setting itself."""
    if not path:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return True  # refused as a whole
    for name in path:
        if not isinstance(value, Mapping | list):
            return False
        value = value.get(name) if isinstance(value, Mapping) else value
    return value is not None


def as_written(
    path: Sequence[str], variables: Mapping[str, str], in_file: Any, otherwise: Any
) -> Any:
    """Return the value of a setting as its variable or the file has it, otherwise `otherwise`."""
    for name, value in variables.items():
        if name.upper() == variable_of(path):
            return value
    for name in path:
        if not isinstance(in_file, Mapping) or name not in in_file:
            return otherwise
        in_file = in_file[name]
    return in_file


def name_as_written(path: Sequence[str], variables: Mapping[str, str], in_file: Any) -> str:
    """Return the setting's name, with the variable that sets it as its user spelled it."""
    source = source_of(path, variables, in_file)
    if source in (FILE, DEFAULT) or source == variable_of(path):
        return named(path)
    return f"{'.'.join(path)} ({source})"
