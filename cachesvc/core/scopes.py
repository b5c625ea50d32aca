"""What an invalidation covers, and which scopes are being invalidated now."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Kinds, Subject


class ScopeKind(Enum):
    """The values are stored in the catalog: never rename them."""

    USER = "user"
    CLOTHING = "clothing"
    OWNER = "owner"
    KEY = "key"
    NAMESPACE = "namespace"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of entries. `value` is the id, owner, `namespace/id` or namespace.

    `namespaces` are those that may hold the id, for USER and CLOTHING.
    """

    kind: ScopeKind
    value: str = ""
    namespaces: tuple[str, ...] = ()

    def covers(self, key: EntryKey, owner: str | None) -> bool:
        """Return whether the scope has an entry of `key` that was read from `owner`'s prefix.

        `owner` None = not known yet: an OWNER scope then covers every entry, to be safe.
        """
        match self.kind:
            case ScopeKind.USER | ScopeKind.CLOTHING:
                return key.id == self.value and key.namespace in self.namespaces
            case ScopeKind.OWNER:
                return owner is None or owner == self.value
            case ScopeKind.KEY:
                return f"{key.namespace}/{key.id}" == self.value
            case ScopeKind.NAMESPACE:
                return key.namespace == self.value
            case ScopeKind.EVERYTHING:
                return True

    def keys(self) -> tuple[EntryKey, ...] | None:
        """Return the keys that the scope can cover, None if they cannot be listed."""
        match self.kind:
            case ScopeKind.USER | ScopeKind.CLOTHING:
                return tuple(EntryKey(name, self.value) for name in self.namespaces)
            case ScopeKind.KEY:
                namespace, _, entry_id = self.value.partition("/")
                return (EntryKey(namespace, entry_id),)
            case _:
                return None


@dataclass(frozen=True, slots=True)
class Change:
    """A scope's source changed at `changed_ns` (wall), and its stored entries are invalidated.

    Only generations up to `up_to_generation` are covered, 0 for none: entries that were stored
    when the invalidation began, and no later ones, however often the invalidation is retried.
    """

    scope: Scope
    changed_ns: int
    up_to_generation: int = 0

    def covers(self, key: EntryKey, generation: int, owner: str) -> bool:
        return generation <= self.up_to_generation and self.scope.covers(key, owner)

    def and_of(self, other: Change) -> Change:
        """Return one change of the same scope that stands for both."""
        return Change(
            self.scope,
            max(self.changed_ns, other.changed_ns),
            max(self.up_to_generation, other.up_to_generation),
        )


def key_scope(key: EntryKey) -> Scope:
    return Scope(ScopeKind.KEY, f"{key.namespace}/{key.id}")


def subject_scope(subject: Subject, entry_id: str, kinds: Kinds) -> Scope:
    """Return the scope of one person, or of one garment and its text."""
    kind = ScopeKind.USER if subject is Subject.USER else ScopeKind.CLOTHING
    return Scope(kind, entry_id, kinds.namespaces_of(subject))


def scopes_of(key: EntryKey, owner: str, kinds: Kinds) -> tuple[Scope, ...]:
    """Return every scope that covers `key`."""
    scopes = [
        key_scope(key),
        subject_scope(kinds.of(key.namespace).subject, key.id, kinds),
        Scope(ScopeKind.NAMESPACE, key.namespace),
        Scope(ScopeKind.EVERYTHING),
    ]
    if owner:
        scopes.append(Scope(ScopeKind.OWNER, owner))
    return tuple(scopes)


class Tombstones:
    """Scopes whose invalidation is not durable yet: their keys miss in L2 and are not committed."""

    def __init__(self) -> None:
        # By id: the scope and the time of its change (wall).
        self._scopes: dict[int, tuple[Scope, int]] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._scopes)

    def add(self, scope: Scope, changed_ns: int) -> int:
        """Cover `scope`, and return the id for `lift`. Scopes may overlap."""
        self._last_id += 1
        self._scopes[self._last_id] = (scope, changed_ns)
        return self._last_id

    def lift(self, tombstone: int) -> None:
        del self._scopes[tombstone]

    def covers(self, key: EntryKey, owner: str | None) -> bool:
        return any(scope.covers(key, owner) for scope, _ in self._scopes.values())

    def last_change_ns(self, key: EntryKey, owner: str) -> int:
        """Return the time of the latest pending change that covers `key`, 0 if none does."""
        changes = (changed for scope, changed in self._scopes.values() if scope.covers(key, owner))
        return max(changes, default=0)

    def lower(self, now_ns: int) -> None:
        """Lower changes that are later than `now_ns` (wall) to `now_ns`."""
        for tombstone, (scope, changed_ns) in self._scopes.items():
            self._scopes[tombstone] = (scope, min(changed_ns, now_ns))
