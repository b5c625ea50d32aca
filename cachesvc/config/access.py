"""Settings of who may call: TLS, certificates, tokens, and which addresses need them.

`core/credentials.py` decides which roles a credential gives, `core/access.py` what a role may
do; docs/security.md is for operators.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, ValidationError

from cachesvc.config.messages import problems, setting
from cachesvc.config.sources import names_of, read_toml
from cachesvc.config.values import MaybeFile, Section, split_address
from cachesvc.core.access import Role
from cachesvc.core.credentials import Grants, Token
from cachesvc.core.errors import ConfigError
from cachesvc_format.names import ID_PATTERN

# A credential without a role could do nothing.
Roles = Annotated[tuple[Role, ...], Field(min_length=1)]


class TlsSettings(Section):
    """TLS of one TCP listener.

    With `client_ca_file`, gRPC callers must show a certificate, and HTTP callers may.
    """

    cert_file: MaybeFile = None
    key_file: MaybeFile = None
    client_ca_file: MaybeFile = None

    @property
    def is_on(self) -> bool:
        return self.cert_file is not None and self.key_file is not None


class TokenSettings(Section):
    """One line of `cachesvc token new`."""

    name: str = Field(pattern=f"^{ID_PATTERN}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: Roles
    expires: AwareDatetime | None = None


class GrantSettings(Section):
    """The grants that `access.file`, and also the settings, may hold."""

    certificates: dict[str, Roles] = Field({})
    tokens: tuple[TokenSettings, ...] = ()


class AccessSettings(GrantSettings):
    """Who may call over TCP, and what the unix socket's group may do."""

    # Read again when it changes: a token is revoked without a restart.
    file: MaybeFile = None
    # With `admin` here, V2's `clear()` works for workers of another user.
    socket_roles: tuple[Role, ...] = (Role.WORKER, Role.BACKEND)

    def load_grants(self) -> Grants:
        """Return the grants of these settings and of the file.

        Raises:
            ConfigError: the file cannot be read, or a name is given twice.
        """
        parts: list[GrantSettings] = [self]
        if self.file is not None:
            parts.append(read_grants(self.file))
        certificates: dict[str, frozenset[Role]] = {}
        tokens: dict[str, Token] = {}
        for part in parts:
            for name, roles in part.certificates.items():
                _add(certificates, name, frozenset(roles), "certificate")
            for token in part.tokens:
                _add(tokens, token.name, _token(token), "token")
        return Grants(certificates, tokens.values())

    def names_anybody(self) -> bool:
        """Return whether any credential can be known; the file may still be empty."""
        return bool(self.certificates or self.tokens or self.file)


def is_loopback(address: str) -> bool:
    """Return whether only this host can reach `host:port`."""
    host, _ = split_address(address)
    return host in ("127.0.0.1", "::1", "localhost")


def read_grants(path: Path) -> GrantSettings:
    """Return the grants in `access.file`. Raises ConfigError: they cannot be read."""
    what = setting("access.file")
    values = read_toml(path, what)
    try:
        if path.stat().st_mode & 0o002:
            raise ConfigError(f"{what}: every user may write {path}: chmod o-w")
        return GrantSettings.model_validate(values)
    except OSError as exc:
        raise ConfigError(f"{what}: {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        found = problems(exc, ".".join, list(names_of(GrantSettings)), has_variables=False)
        raise ConfigError(f"{what}: {path}: {'; '.join(found)}") from exc


def listener_problems(
    section: str, listen: str, tls: TlsSettings, access: AccessSettings
) -> list[str]:
    """Return the problems that make this listener unsafe, worded for its operator."""
    files = f"{setting(f'{section}.tls.cert_file')} and {setting(f'{section}.tls.key_file')}"
    problems = []
    if (tls.cert_file is None) != (tls.key_file is None):
        problems.append(f"{section}.tls needs both {files}")
    elif tls.client_ca_file is not None and not tls.is_on:
        problems.append(f"{section}.tls.client_ca_file needs {files} as well")
    if not listen or is_loopback(listen):
        return problems
    name = setting(f"{section}.listen")
    if not tls.is_on:
        problems.append(
            f"{name}: {listen} is not loopback (127.0.0.1, ::1, localhost) and needs TLS: "
            f"set {files}"
        )
    if not access.names_anybody():
        problems.append(
            f"{name}: {listen} is not loopback, and no caller has a credential: "
            "set access.certificates, access.tokens or access.file (docs/security.md)"
        )
    return problems


def _token(settings: TokenSettings) -> Token:
    expires = settings.expires
    return Token(
        name=settings.name,
        sha256=bytes.fromhex(settings.sha256),
        roles=frozenset(settings.roles),
        expires_ns=None if expires is None else int(expires.timestamp() * 1e9),
    )


def _add(known: dict[str, Any], name: str, value: Any, what: str) -> None:
    if name in known:
        raise ConfigError(f"access: the {what} {name} is named twice")
    known[name] = value
