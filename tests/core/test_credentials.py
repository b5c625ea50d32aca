"""Promise 10: whose credential is it, and is a doubtful one never taken for somebody's?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachesvc.core.access import Role
from cachesvc.core.credentials import (
    MAX_TOKEN_CHARS,
    Grants,
    NameKind,
    SubjectName,
    Token,
    bearer_token,
    token_digest,
)
from cachesvc.core.errors import Unauthenticated

BACKEND = frozenset({Role.BACKEND})
WORKER = frozenset({Role.WORKER})
GRANTS = Grants(
    {
        "backend.example": BACKEND,
        "spiffe://prod/worker": WORKER,
        "10.0.0.7": frozenset({Role.OBSERVER}),
        "ops@example.com": frozenset({Role.ADMIN}),
    },
    [
        Token("nest", token_digest("secret"), BACKEND),
        Token("brief", token_digest("brief"), WORKER, expires_ns=1_000),
    ],
)


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        (SubjectName.dns("backend.example"), BACKEND),
        (SubjectName.dns("BACKEND.example"), BACKEND),
        (SubjectName(NameKind.URI, "spiffe://prod/worker"), WORKER),
        (SubjectName(NameKind.IP, "10.0.0.7"), frozenset({Role.OBSERVER})),
        (SubjectName(NameKind.EMAIL, "ops@example.com"), frozenset({Role.ADMIN})),
    ],
)
def test_a_name_on_the_list_has_its_roles(name: SubjectName, roles: frozenset[Role]) -> None:
    assert GRANTS.of_names([name]).roles == roles


@pytest.mark.parametrize(
    "names",
    [
        [],
        [SubjectName.dns("other.example")],
        [SubjectName.dns("backend.example.evil")],
        [SubjectName.dns("*.example")],
        [SubjectName.dns("backend.example\0.evil")],
        [SubjectName(NameKind.URI, "backend.example")],
        [SubjectName(NameKind.DNS, "10.0.0.7")],
        [SubjectName(NameKind.URI, "SPIFFE://prod/worker")],
    ],
)
def test_a_name_that_is_not_exactly_on_the_list_is_nobody(names: list[SubjectName]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        GRANTS.of_names(names)
    assert caught.value.reason == "CREDENTIAL_UNKNOWN"


def test_of_several_known_names_the_roles_add_up() -> None:
    both = [SubjectName.dns("x"), SubjectName.dns("backend.example")]
    both.append(SubjectName(NameKind.URI, "spiffe://prod/worker"))

    assert GRANTS.of_names(both).roles == BACKEND | WORKER


def test_a_token_is_known_by_its_hash() -> None:
    principal = GRANTS.of_token("secret", wall_ns=0)

    assert (principal.name, principal.roles) == ("token nest", BACKEND)


@given(st.text(max_size=2 * MAX_TOKEN_CHARS).filter(lambda text: text not in ("secret", "brief")))
def test_any_other_text_is_nobodys_token(text: str) -> None:
    with pytest.raises(Unauthenticated):
        GRANTS.of_token(text, wall_ns=0)


def test_a_token_is_refused_at_exactly_its_expiry() -> None:
    assert GRANTS.of_token("brief", wall_ns=999).roles == WORKER
    with pytest.raises(Unauthenticated) as caught:
        GRANTS.of_token("brief", wall_ns=1_000)
    assert caught.value.reason == "CREDENTIAL_EXPIRED"


def test_a_call_without_authorization_has_no_token() -> None:
    assert bearer_token([]) is None


@pytest.mark.parametrize("value", ["Bearer abc", "bearer abc", "BEARER  abc "])
def test_the_scheme_is_written_in_any_case(value: str) -> None:
    assert bearer_token([value]) == "abc"


@pytest.mark.parametrize("values", [[""], ["abc"], ["Basic abc"], ["Bearer"], ["Bearer a"] * 2])
def test_anything_but_one_bearer_token_is_refused_and_never_nobody(values: list[str]) -> None:
    with pytest.raises(Unauthenticated):
        bearer_token(values)
