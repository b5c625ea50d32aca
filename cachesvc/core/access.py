"""Who may do what: roles, actions, and the one table between them.

Pure. `edge/` decides which roles a credential gives; only this module
decides what a role allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from cachesvc.core.errors import PermissionDenied
from cachesvc.core.scopes import ScopeKind


class Role(Enum):
    """The values are the names in the settings."""

    WORKER = "worker"
    BACKEND = "backend"
    OBSERVER = "observer"
    ADMIN = "admin"


class Action(Enum):
    """What a call does. The values are for messages and the audit log."""

    PROBE = "probe"  # health, reflection
    OBSERVE = "observe"  # counters, gauges, the status page: none of them shows a key
    FIND = "find"  # look up one key, without its bytes
    READ = "read"
    PUT = "put"
    WARM = "warm"
    INVALIDATE = "invalidate"  # one person, garment, owner or key
    PURGE = "purge"  # a namespace, or everything


_EVERYBODY = frozenset({Action.PROBE, Action.OBSERVE})
_ALLOWED: dict[Role, frozenset[Action]] = {
    Role.WORKER: _EVERYBODY | {Action.FIND, Action.READ, Action.PUT, Action.WARM},
    Role.BACKEND: _EVERYBODY | {Action.FIND, Action.WARM, Action.INVALIDATE},
    Role.OBSERVER: _EVERYBODY,
    Role.ADMIN: frozenset(Action),
}
_PURGES = frozenset({ScopeKind.NAMESPACE, ScopeKind.EVERYTHING})


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller. `name` is for the audit log: a certificate's SAN, a token's name, a listener."""

    name: str
    roles: frozenset[Role]

    def may(self, action: Action) -> bool:
        return any(action in _ALLOWED[role] for role in self.roles)

    def check(self, action: Action) -> None:
        """Raise PermissionDenied unless one of the roles allows `action`."""
        if not self.may(action):
            having = " and ".join(sorted(role.value for role in self.roles)) or "no role"
            raise PermissionDenied(
                f"{self.name} has {having}, which may not {action.value}; "
                f"one of these may: {', '.join(_roles_with(action))}"
            )


def action_of(scope: ScopeKind) -> Action:
    """Return the action, PURGE or INVALIDATE, of an invalidation of `scope`."""
    return Action.PURGE if scope in _PURGES else Action.INVALIDATE


def _roles_with(action: Action) -> list[str]:
    return [role.value for role in Role if action in _ALLOWED[role]]
