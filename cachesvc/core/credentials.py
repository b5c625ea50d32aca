"""Whose credential is this: which certificates and tokens are known, and with which roles?

Pure: the edges hand in names, tokens and the time. Only a token's SHA-256 is stored.
That is enough for 256 random bits: nobody can guess them, so a slow hash would
protect nothing.
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

# A longer value is no known token, and is refused without being hashed.
MAX_TOKEN_CHARS = 512
_BEARER = "bearer "


class NameKind(Enum):
    """The sort of a certificate's subject alternative name (SAN)."""

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
        """Return the name that the settings write as `text`; its form decides its kind."""
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
    """A known token; `expires_ns` is wall-clock time, None = never."""

    name: str
    sha256: bytes
    roles: frozenset[Role]
    expires_ns: int | None = None


class Grants:
    """The known certificates and tokens. Immutable: changed settings make a new object."""

    def __init__(
        self, certificates: Mapping[str, frozenset[Role]], tokens: Iterable[Token]
    ) -> None:
        self._by_name = {
            SubjectName.parse(text): Principal(f"certificate {text}", roles)
            for text, roles in certificates.items()
        }
        self._tokens = tuple(tokens)

    def of_names(self, names: Iterable[SubjectName]) -> Principal:
        """Return the principal of a certificate with these SANs.

        The caller has checked the certificate's chain and dates. Several known names add
        up their roles. Raises Unauthenticated: no name is known.
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
        """Return the principal of `token`. Raises Unauthenticated: it is unknown or expired."""
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
        # Compare all tokens, so that the time does not tell which token matched.
        for known in self._tokens:
            if hmac.compare_digest(known.sha256, digest):
                found = known
        return found


def token_digest(token: str) -> bytes:
    """Return the SHA-256 that is stored of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def bearer_token(authorization: Iterable[str]) -> str | None:
    """Return the token of a call's `authorization` values, None if there are no values.

    Raises Unauthenticated unless there is exactly one bearer token: a caller with a bad
    credential is never treated as a caller without credentials.
    """
    values = list(authorization)
    if not values:
        return None
    if len(values) > 1 or not values[0].lower().startswith(_BEARER):
        raise Unauthenticated("authorization must be one bearer token", reason="CREDENTIAL_UNKNOWN")
    return values[0][len(_BEARER) :].strip()
