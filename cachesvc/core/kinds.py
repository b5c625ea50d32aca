"""What can be cached: kinds, their namespaces, fields and where the origin keeps them.

Kinds are data. The three kinds of the try-on service are built in; the config file
changes their limits or adds other kinds (`config/kinds.py` builds them).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from string import Formatter

from cachesvc.core.errors import ConfigError, InvalidRequest, PreconditionFailed
from cachesvc.core.keys import EntryKey, checked_id
from cachesvc_format.names import clipped, is_id
from cachesvc_format.namespaces import (
    GARMENT_IMAGE,
    GARMENT_NAMESPACE,
    GARMENT_TENSOR,
    HUMAN_IMAGES,
    HUMAN_NAMESPACES,
    HUMAN_TENSOR,
    TEXT_NAMESPACE,
    TEXT_TENSORS,
)

DEFAULT_TTL_S = 24 * 3600.0
# Long enough for a burst of one request's retries, too short to delay an upload noticeably.
DEFAULT_ABSENT_TTL_S = 2.0
# Garments and texts change rarely and show no person's photo.
DEFAULT_STALE_IF_ERROR_S = 3600.0
_NAME_RULE = "it begins with a letter or digit and has at most 128 of A-Z a-z 0-9 . _ -"
_PLACEHOLDERS = frozenset({"owner", "id", "part", "version"})


class Encoding(Enum):
    """How the origin stores one field."""

    PNG = "png"
    PICKLE = "pickle"

    @property
    def has_forms(self) -> bool:
        """Return whether objects of this encoding have several forms, each with other readers."""
        return self is Encoding.PICKLE


class Subject(Enum):
    """What an entry's id names. `Invalidate` selects entries by it."""

    USER = "user"
    CLOTHING = "clothing"


@dataclass(frozen=True, slots=True)
class Field:
    """One member of an entry and the object it is read from.

    `template` may use `{owner}`, `{id}`, `{part}` (the namespace's folder) and
    `{version}` (the kind's).
    """

    name: str
    encoding: Encoding
    template: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """One L2 directory and LRU list; `part` is its folder at the origin."""

    name: str
    part: str = ""


@dataclass(frozen=True, slots=True)
class Kind:
    """What all entries of a kind have in common.

    `max_entries` is per namespace of L1. `max_bytes` bounds one namespace of L1;
    0 means that only L1's total is bounded. `stale_if_error_s` is how long after its
    expiry an entry may be served while the origin cannot be asked; `absent_ttl_s` is how
    long an absence is remembered. `version` is that of the model that made the tensors:
    a request that names another version is refused.

    Raises:
        ConfigError: if a name, template or limit is not valid.
    """

    name: str
    namespaces: tuple[Namespace, ...]
    fields: tuple[Field, ...]
    subject: Subject
    max_entries: int
    private: bool = False
    max_bytes: int = 0
    ttl_s: float = DEFAULT_TTL_S
    stale_if_error_s: float = 0.0
    absent_ttl_s: float = DEFAULT_ABSENT_TTL_S
    version: str = ""

    def __post_init__(self) -> None:
        names = [namespace.name for namespace in self.namespaces]
        names += [field.name for field in self.fields]
        for name in (self.name, *names):
            if not is_id(name):
                raise ConfigError(f"kinds.{self.name}: {name!r} is no name: {_NAME_RULE}")
        if not self.fields or not self.namespaces:
            raise ConfigError(f"kinds.{self.name} needs at least one field and one namespace")
        if len({f.name for f in self.fields}) != len(self.fields):
            raise ConfigError(f"kinds.{self.name}.fields: two fields have the same name")
        if self.version and not is_id(self.version):
            raise ConfigError(
                f"kinds.{self.name}.version is {self.version!r}, which is no name: {_NAME_RULE}"
            )
        self._check_limits()
        for field in self.fields:
            self._check_template(field)

    def _check_limits(self) -> None:
        if self.max_entries < 1 or self.max_bytes < 0 or self.ttl_s <= 0:
            raise ConfigError(f"kinds.{self.name}: max_entries and ttl_hours are more than 0")
        if self.stale_if_error_s < 0 or self.absent_ttl_s < 0:
            raise ConfigError(f"kinds.{self.name}: times are at least 0")
        if self.private and self.stale_if_error_s:
            raise ConfigError(
                f"kinds.{self.name}.stale_if_error_s is {self.stale_if_error_s:g}: a private kind "
                "is never served stale; set it to 0"
            )

    def _check_template(self, field: Field) -> None:
        problem = ConfigError(
            f"kinds.{self.name}.fields, {field.name}: the template {field.template!r} gives no "
            "key: it may have {owner}, {id}, {part} and {version}, has no other braces, does not "
            "begin with / and has no part that is .."
        )
        try:
            parts = list(Formatter().parse(field.template))
        except ValueError as exc:
            raise problem from exc
        for _, name, layout, conversion in parts:
            # Plain names only: a width could make gigabytes, an attribute could reach any value.
            if name is not None and (name not in _PLACEHOLDERS or layout or conversion):
                raise problem
        key = field.template.format(owner="o", id="i", part="p", version="v")
        if not key or key.startswith("/") or ".." in key.split("/"):
            raise problem

    @property
    def field_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def object_key(self, field: Field, key: EntryKey, owner: str) -> str:
        """Return the key of the origin's object for `field` of `key`. All ids are checked."""
        part = next(n.part for n in self.namespaces if n.name == key.namespace)
        return field.template.format(owner=owner, id=key.id, part=part, version=self.version)

    def may_hold(self, entry_id: str, owner: str) -> bool:
        """Return False for a person's entry whose source is another person's prefix.

        An invalidation of the person in that photo would not reach the entry.
        """
        is_a_persons = self.private and self.subject is Subject.USER
        return not is_a_persons or owner in ("", entry_id)

    def check_owner(self, entry_id: str, owner: str) -> None:
        """Raise InvalidRequest, reason FOREIGN_OWNER, unless `may_hold`."""
        if not self.may_hold(entry_id, owner):
            raise InvalidRequest(
                f"{self.name} entries are read from the person's own prefix: "
                "leave owner_id out, or name the same id",
                reason="FOREIGN_OWNER",
            )

    def check_version(self, asked: str) -> None:
        """Raise PreconditionFailed, reason KIND_VERSION_MISMATCH, if `asked` is another version."""
        if asked and asked != self.version:
            own = f"version {clipped(self.version)}" if self.version else "no version"
            raise PreconditionFailed(
                f"the kind {self.name} has {own} at this daemon, and the call expects "
                f"{clipped(asked)}: give both sides one version, or let the call name none",
                reason="KIND_VERSION_MISMATCH",
            )


class Kinds:
    """Every kind this daemon knows, by namespace.

    Raises:
        ConfigError: if two kinds share a name or a namespace.
    """

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.all = kinds
        self.by_name = {kind.name: kind for kind in kinds}
        self._by_namespace = {n.name: kind for kind in kinds for n in kind.namespaces}
        if len(self.by_name) != len(kinds):
            raise ConfigError("kinds: two kinds have the same name")
        if len(self._by_namespace) != sum(len(kind.namespaces) for kind in kinds):
            raise ConfigError("kinds: two kinds have the same namespace")

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(self._by_namespace)

    def of(self, namespace: str) -> Kind:
        """Return the kind of `namespace`, or raise InvalidRequest, reason UNKNOWN_NAMESPACE."""
        kind = self._by_namespace.get(namespace)
        if kind is None:
            checked_id(namespace, "namespace")
            raise InvalidRequest(
                f"unknown namespace; this daemon has {', '.join(self._by_namespace)}",
                reason="UNKNOWN_NAMESPACE",
            )
        return kind

    def namespaces_of(self, subject: Subject) -> tuple[str, ...]:
        """Return the namespaces whose ids name a `subject`."""
        return tuple(name for name, kind in self._by_namespace.items() if kind.subject is subject)


_PREFIX = "users/{owner}/vton-cache"
_PARTS = {"upper_body": "upper", "lower_body": "lower", "dresses": "dresses"}

HUMAN = Kind(
    name="human",
    namespaces=tuple(
        Namespace(name, _PARTS[category]) for category, name in HUMAN_NAMESPACES.items()
    ),
    fields=(
        *(Field(name, Encoding.PNG, f"{_PREFIX}/{{part}}/{name}.png") for name in HUMAN_IMAGES),
        Field(HUMAN_TENSOR, Encoding.PICKLE, _PREFIX + "/{part}/pose_tensor.pkl"),
    ),
    subject=Subject.USER,
    max_entries=10,
    private=True,
)
GARMENT = Kind(
    name="garment",
    namespaces=(Namespace(GARMENT_NAMESPACE),),
    fields=(
        Field(GARMENT_IMAGE, Encoding.PNG, _PREFIX + "/garments/{id}_img.png"),
        Field(GARMENT_TENSOR, Encoding.PICKLE, _PREFIX + "/garments/{id}_tensor.pkl"),
    ),
    subject=Subject.CLOTHING,
    max_entries=100,
    stale_if_error_s=DEFAULT_STALE_IF_ERROR_S,
)
TEXT = Kind(
    name="text",
    namespaces=(Namespace(TEXT_NAMESPACE),),
    fields=tuple(
        Field(name, Encoding.PICKLE, _PREFIX + "/text/{id}_" + name + ".pkl")
        for name in TEXT_TENSORS
    ),
    subject=Subject.CLOTHING,
    max_entries=100,
    stale_if_error_s=DEFAULT_STALE_IF_ERROR_S,
)
BUILT_IN = (HUMAN, GARMENT, TEXT)
