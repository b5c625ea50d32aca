"""Whose credential is this: which certificates and tokens are known, and with which roles?

Pure: names and tokens are handed in as the edges read them, and the time with
them. A token is known by its SHA-256 alone, which is enough for 256 random bits:
there is nothing to guess, so nothing that a slow hash would slow down.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from cachesvc.core.access import Principal, Role
from cachesvc.core.errors import Unauthenticated

# Longer ones are nobody's, and are not hashed to find that out.
MAX_TOKEN_CHARS = 512
_BEARER = "bearer "


class NameKind(Enum):
    """What a certificate's subject alternative name (SAN) is."""

    DNS = "dns"
    URI = "uri"
    IP = "ip"
    EMAIL = "email"


@dataclass(frozen=True, slots=True)
class SubjectName:
    """One SAN. The kind counts: a URI that spells a host's name is not that host."""

    kind: NameKind
    value: str

    @classmethod
    def parse(cls, text: str) -> SubjectName:
        """Return the name that settings write; its form says its kind."""
        if "://" in text:
            return cls(NameKind.URI, text)
        if "@" in text:
            return cls(NameKind.EMAIL, text)
        try:
            return cls(NameKind.IP, str(ipaddress.ip_address(text)))
        except ValueError:
            return cls.dns(text)

    @classmethod
    def dns(cls, text: str) -> SubjectName:
        return cls(NameKind.DNS, text.lower())


@dataclass(frozen=True, slots=True)
class Token:
    """A token that somebody holds; `expires_ns` is wall-clock time, None = never."""

    name: str
    sha256: bytes
    roles: frozenset[Role]
    expires_ns: int | None = None


class Grants:
    """Who is known. Immutable: a change of the settings makes another one."""

    def __init__(
        self, certificates: Mapping[str, frozenset[Role]], tokens: Iterable[Token]
    ) -> None:
        self._by_name = {
            SubjectName.parse(text): Principal(f"certificate {text}", roles)
            for text, roles in certificates.items()
        }
        self._tokens = tuple(tokens)

    def of_names(self, names: Iterable[SubjectName]) -> Principal:
        """Return who presented a certificate with these SANs. Raises Unauthenticated.

        The caller has checked the certificate itself: its chain, its dates. Of several
        known names the roles add up.
        """
        known = [self._by_name[name] for name in names if name in self._by_name]
        if not known:
            raise Unauthenticated(
                "no name of the certificate is on the allow-list (access.certificates)",
                reason="CREDENTIAL_UNKNOWN",
            )
        if len(known) == 1:
            return known[0]
        roles = frozenset[Role]().union(*(principal.roles for principal in known))
        return Principal(known[0].name, roles)

    def of_token(self, token: str, wall_ns: int) -> Principal:
        """Return whose token it is. Raises Unauthenticated."""
        found = self._find(token)
        if found is None:
            raise Unauthenticated("the token is not known", reason="CREDENTIAL_UNKNOWN")
        if found.expires_ns is not None and wall_ns >= found.expires_ns:
            raise Unauthenticated("the token has expired", reason="CREDENTIAL_EXPIRED")
        return Principal(f"token {found.name}", found.roles)

    def _find(self, token: str) -> Token | None:
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest = token_digest(token)
        found = None
        # All of them, so that the time says nothing of which one it was.
        for known in self._tokens:
            if hmac.compare_digest(known.sha256, digest):
                found = known
        return found


def token_digest(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def bearer_token(authorization: Iterable[str]) -> str | None:
    """Return the token of a call's `authorization` values, or None where it has none.

    Raises Unauthenticated for anything else than one bearer token: a caller that
    means to be somebody is never taken for nobody.
    """
    values = list(authorization)
    if not values:
        return None
    if len(values) > 1 or not values[0].lower().startswith(_BEARER):
        raise Unauthenticated("authorization must be one bearer token", reason="CREDENTIAL_UNKNOWN")
    return values[0][len(_BEARER) :].strip()
