"""Finds which arguments of V2's constructor were given, and under which name.

V2 has two spellings: its document's and its repository's. Each argument has a name in both, and
both orders of positional arguments are accepted.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from cachesvc_client._arguments import check_settings


@dataclass(frozen=True, slots=True)
class _Argument:
    """One old argument: its names, the document's first, and the settings that replace it."""

    names: tuple[str, ...]
    settings: str


_ROOT = _Argument(("ssd_root",), "CACHESVC_L2__ROOT")
_PEOPLE = _Argument(("l1_max_users", "l1_human_limit"), "CACHESVC_KINDS__HUMAN__MAX_ENTRIES")
_GARMENTS = _Argument(
    ("l1_max_garments", "l1_garment_limit"),
    "CACHESVC_KINDS__GARMENT__MAX_ENTRIES, CACHESVC_KINDS__TEXT__MAX_ENTRIES",
)
_HOURS = _Argument(("ttl_hours",), "CACHESVC_TTL_HOURS")
_DISK = _Argument(("max_disk_usage_gb", "ssd_limit_gb"), "CACHESVC_L2__MAX_BYTES")

_DOCUMENTS_ORDER = (_ROOT, _PEOPLE, _GARMENTS, _HOURS, _DISK)
_REPOSITORYS_ORDER = (_PEOPLE, _GARMENTS, _ROOT, _DISK, _HOURS)


def warn_about(positional: tuple[object, ...], named: Mapping[str, object]) -> None:
    """Warn the constructor's caller once, naming the settings that replace the arguments.

    Raises:
        TypeError: too many positional arguments, or two values for one argument.
        InvalidSettings: an argument of another type.
    """
    given: dict[_Argument, tuple[str, object]] = {}
    for name, argument, value in _calls(positional, named):
        if value is None:
            continue
        check_settings({name: value})
        earlier, before = given.setdefault(argument, (name, value))
        if _comparable(before) != _comparable(value):
            raise TypeError(
                f"TwoLevelCacheV2() got two values for one argument: {earlier}={before!r} and "
                f"{name}={value!r}; give one of them"
            )
    if given:
        text = "; ".join(f"{name}: {argument.settings}" for argument, (name, _) in given.items())
        warnings.warn(
            f"TwoLevelCacheV2 no longer uses these; set them on the daemon ({text})",
            DeprecationWarning,
            # This function, the constructor, its caller.
            stacklevel=3,
        )


def _calls(
    positional: tuple[object, ...], named: Mapping[str, object]
) -> list[tuple[str, _Argument, object]]:
    """Return name, argument and value of every argument passed."""
    # The document's order begins with a path, the repository's with a number.
    starts_with_path = bool(positional) and isinstance(positional[0], (str, os.PathLike))
    order = _DOCUMENTS_ORDER if starts_with_path else _REPOSITORYS_ORDER
    if len(positional) > len(order):
        raise TypeError(
            f"TwoLevelCacheV2() takes at most {len(order)} positional arguments "
            f"({len(positional)} were given)"
        )
    name_of = 0 if starts_with_path else -1
    found = [
        (argument.names[name_of], argument, value)
        for argument, value in zip(order, positional, strict=False)
    ]
    by_name = {name: argument for argument in _DOCUMENTS_ORDER for name in argument.names}
    return found + [(name, by_name[name], value) for name, value in named.items()]


def _comparable(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
