"""How does a setting that cannot be read say what is wrong with it?

pydantic finds the problem; every word is ours. A message names the setting and its variable, shows
the value unless it may be a secret, and says what the value has to be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from cachesvc.config.values import ENV_PREFIX
from cachesvc.core import units

MASK = "***"
# Up to the last @: a password may contain @.
_USERINFO = re.compile(r"(?<=://)\S*(?=@)")
_SECRET_NAME = re.compile(r"secret|password|token|credential|sha256", re.IGNORECASE)
_SHOWN_CHARACTERS = 80
# Below this similarity a name is more likely another word than a typing error.
CLOSE = 0.7
_SECTION = (
    'it has to be a section: a table in the file; in a variable JSON, such as {"name": "value"}, '
    "or name the setting in the variable's name after __"
)
_LIST = 'it has to be a list, in a variable as JSON, such as ["worker", "backend"]'
_EXPECTED = {
    "int": "it has to be a whole number, such as 8",
    "float": "it has to be a number, such as 0.5",
    "finite": "it has to be a finite number",
    "bool": "it has to be true or false",
    "string": "it has to be a text",
    "path": "it has to be a path, such as /dev/shm/cachesvc",
    "tuple": _LIST,
    "list": _LIST,
    "dict": _SECTION,
    "model": _SECTION,
    "missing": "it is missing",
    "too": "it needs at least one value",
    "timezone": "the time needs a zone, such as 2027-01-31T00:00:00Z",
    "datetime": "it has to be a time with a zone, such as 2027-01-31T00:00:00Z",
}
_OF_JSON = frozenset({"model", "dict", "tuple", "list"})
_PATTERNS = {
    "sha256": "it has to be the 64 hexadecimal digits that `cachesvc token new` prints",
    "name": "it has to begin with a letter or digit, and have at most 128 of A-Z a-z 0-9 . _ -",
}
_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
}


def variable_of(path: Sequence[str]) -> str:
    """Return the variable of the setting at `path`."""
    return (ENV_PREFIX + "__".join(path)).upper()


def named(path: Sequence[str]) -> str:
    """Return a setting's two names: `l1.max_bytes (CACHESVC_L1__MAX_BYTES)`."""
    return f"{'.'.join(path)} ({variable_of(path)})"


def setting(dotted: str) -> str:
    """Return the two names of a setting that the code spells as the file does."""
    return named(dotted.split("."))


def masked(path: Sequence[str], value: Any) -> Any:
    """Return the value with its secrets masked."""
    if isinstance(value, str) and value:
        is_secret = any(_SECRET_NAME.search(name) for name in path)
        return MASK if is_secret else _USERINFO.sub(MASK, value)
    return value


def shown(path: Sequence[str], value: Any) -> str:
    """Return the value as a message may show it."""
    if not isinstance(value, str | int | float):
        return _kind_of(value)
    text = json.dumps(masked(path, value), ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def problems(
    exc: ValidationError,
    name_of: Callable[[Sequence[str]], str],
    known: Sequence[str],
    written: Callable[[Sequence[str], Any], Any] = lambda _, value: value,
    *,
    has_variables: bool = True,
) -> list[str]:
    """Return a sentence for each problem.

    `name_of` returns the name of the setting at a path as the user wrote it, `written` its value
    as the user wrote it, otherwise the value that it is given. `known` are the settings that exist,
    dotted; `has_variables` = each has a variable too.
    """
    found = []
    for error in exc.errors():
        path = [str(part) for part in error["loc"]]
        if error["type"] == "extra_forbidden":
            hint = _hint(path, known, has_variables=has_variables)
            found.append(f"{name_of(path)}: there is no such setting{hint}")
        elif error["type"] == "missing":
            found.append(f"{name_of(path)} is missing")
        else:
            found.append(
                f"{name_of(path)} is {_input(path, error, written)}: {_expected(path, error)}"
            )
    return found


def nearest(name: str, known: Iterable[str], at_least: float = CLOSE) -> str | None:
    """Return the known name that is most like `name`; None if none is close.

    A name whose last part is right, in the wrong section, is close to that setting.
    """
    name, names = name.lower(), list(known)
    close = get_close_matches(name, names, 1, at_least)
    if close:
        return close[0]
    last = name.rpartition(".")[2]
    same = [one for one in names if one.rpartition(".")[2] == last]
    return same[0] if len(same) == 1 else None


def _hint(path: Sequence[str], known: Sequence[str], *, has_variables: bool) -> str:
    """Return which setting may be meant, otherwise what the section has."""
    near = nearest(".".join(path), known)
    if near is not None:
        return f"; the nearest is {setting(near) if has_variables else near}"
    section = "".join(f"{name}." for name in path[:-1])
    siblings = [name.removeprefix(section) for name in known if name.startswith(section)]
    siblings = [name for name in siblings if "." not in name]
    return f"; {'.'.join(path[:-1])} has {', '.join(siblings)}" if section and siblings else ""


def _input(
    path: Sequence[str],
    error: Mapping[str, Any],
    written: Callable[[Sequence[str], Any], Any],
) -> str:
    value, kind = written(path, error["input"]), error["type"].partition("_")[0]
    # It may hold tokens, and was meant as JSON.
    if kind in _OF_JSON and isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return "no valid JSON"
    return shown(path, value)


def _expected(path: Sequence[str], error: Mapping[str, Any]) -> str:
    kind, context, name = error["type"], error.get("ctx", {}), path[-1]
    if kind == "value_error":
        return str(context["error"])
    if kind == "tuple_type" and name == "tokens":
        return "it has to be a list of the entries that `cachesvc token new --json` prints"
    if kind in ("literal_error", "enum"):
        return f"it has to be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(name, "it has another form")
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"it has to be {words} {_quantity(name, context[key])}"
    return _EXPECTED.get(kind.partition("_")[0], "it cannot be read")


def _quantity(name: str, value: float) -> str:
    """Return a limit in the unit that the setting's name says."""
    if name.endswith("_bytes"):
        return units.size_text(int(value))
    if name.endswith("_hours"):
        return units.time_text(value * 3600)
    if name.endswith("_ms"):
        return units.time_text(value / 1000)
    return units.time_text(value) if name.endswith("_s") else f"{value:,}"


def _kind_of(value: object) -> str:
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else "another kind of value"
