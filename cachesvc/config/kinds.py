"""Settings of kinds: changes of the built-in kinds, and added kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from cachesvc.config.values import Count, Hours, Seconds, Section, Size
from cachesvc.core import kinds
from cachesvc.core.errors import ConfigError
from cachesvc.core.kinds import Encoding, Kind, Kinds, Namespace, Subject

# What a changed kind keeps of the built-in kind.
_KEPT = (
    "max_entries",
    "max_bytes",
    "stale_if_error_s",
    "absent_ttl_s",
    "version",
    "private",
    "subject",
    "namespaces",
    "fields",
)
_NEEDED = ("max_entries", "subject", "namespaces", "fields")


class FieldSettings(Section):
    name: str
    encoding: Encoding
    template: str


class NamespaceSettings(Section):
    name: str
    part: str = ""


class KindSettings(Section):
    """Changes a built-in kind's limits, or describes a new kind."""

    max_entries: Count | None = Field(None, ge=1)
    max_bytes: Size | None = Field(None, ge=0)
    ttl_hours: Hours | None = Field(None, gt=0)
    stale_if_error_s: Seconds | None = Field(None, ge=0)
    absent_ttl_s: Seconds | None = Field(None, ge=0)
    version: str | None = None
    private: bool | None = None
    subject: Subject | None = None
    namespaces: tuple[NamespaceSettings, ...] | None = None
    fields_: tuple[FieldSettings, ...] | None = Field(None, alias="fields")


def build(changes: Mapping[str, KindSettings], ttl_hours: float) -> Kinds:
    """Return the built-in kinds with their changes, and the added ones. Raises ConfigError.

    `ttl_hours` is for kinds without their own.
    """
    built_in = {kind.name: kind for kind in kinds.BUILT_IN}
    names = [*built_in, *(name for name in changes if name not in built_in)]
    return Kinds(
        tuple(
            _build(name, changes.get(name, KindSettings()), built_in.get(name), ttl_hours)
            for name in names
        )
    )


def _build(name: str, given: KindSettings, known: Kind | None, ttl_hours: float) -> Kind:
    values: dict[str, Any] = {
        "max_entries": given.max_entries,
        "max_bytes": given.max_bytes,
        "ttl_s": (given.ttl_hours or ttl_hours) * 3600.0,
        "stale_if_error_s": given.stale_if_error_s,
        "absent_ttl_s": given.absent_ttl_s,
        "version": given.version,
        "private": given.private,
        "subject": given.subject,
        "namespaces": _converted(given.namespaces, Namespace),
        "fields": _converted(given.fields_, kinds.Field),
    }
    values = {key: value for key, value in values.items() if value is not None}
    if known is not None:
        values = {key: getattr(known, key) for key in _KEPT} | values
    missing = [key for key in _NEEDED if key not in values]
    if missing:
        raise ConfigError(f"kinds.{name}: a new kind also needs {', '.join(missing)}")
    return Kind(name=name, **values)


def _converted(given: tuple[Section, ...] | None, to: type[Any]) -> tuple[Any, ...] | None:
    return None if given is None else tuple(to(**part.model_dump()) for part in given)
