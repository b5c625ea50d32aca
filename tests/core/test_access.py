"""Promise 10: every role and every action, explicitly, and unknown means denied."""

from __future__ import annotations

import pytest

from cachesvc.core.access import Action, Principal, Role, action_of
from cachesvc.core.errors import PermissionDenied
from cachesvc.core.scopes import ScopeKind

# Written out independently of the table under test.
ALLOWED = {
    Role.WORKER: {"probe", "observe", "find", "read", "put", "warm"},
    Role.BACKEND: {"probe", "observe", "find", "warm", "invalidate"},
    Role.OBSERVER: {"probe", "observe"},
    Role.ADMIN: {"probe", "observe", "find", "read", "put", "warm", "invalidate", "purge"},
}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("action", Action)
def test_a_role_may_do_what_the_table_says_and_nothing_else(role: Role, action: Action) -> None:
    principal = Principal("somebody", frozenset({role}))

    assert principal.may(action) is (action.value in ALLOWED[role])


@pytest.mark.parametrize("action", Action)
def test_without_a_role_everything_is_denied(action: Action) -> None:
    with pytest.raises(PermissionDenied, match="no role"):
        Principal("somebody", frozenset()).check(action)


def test_two_roles_allow_what_either_allows() -> None:
    both = Principal("unix socket", frozenset({Role.WORKER, Role.BACKEND}))

    both.check(Action.READ)
    both.check(Action.INVALIDATE)
    with pytest.raises(PermissionDenied, match="may not purge; one of these may: admin"):
        both.check(Action.PURGE)


@pytest.mark.parametrize("scope", ScopeKind)
def test_only_namespaces_and_everything_are_purges(scope: ScopeKind) -> None:
    wide = scope in (ScopeKind.NAMESPACE, ScopeKind.EVERYTHING)

    assert action_of(scope) is (Action.PURGE if wide else Action.INVALIDATE)
