"""Settings of who may call: TLS, certificates, tokens, and which addresses need them.

`core/credentials.py` decides which roles a credential gives, `core/access.py` what a role may
do; docs/security.md is for operators.
"""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from cachesvc.core.access import Role
from cachesvc.core.credentials import Grants, Token
from cachesvc.core.errors import ConfigError
from cachesvc_format.names import ID_PATTERN

ENV_PREFIX = "CACHESVC_"
# The standard reader follows nested arrays by recursion.
NOT_TOML = (ValueError, RecursionError)


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )


class TlsSettings(Section):
    """TLS of one TCP listener.

    With `client_ca_file`, gRPC callers must show a certificate, and HTTP callers may.
    """

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None

    @field_validator("cert_file", "key_file", "client_ca_file", mode="before")
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        # A compose file leaves a variable out as "", which would be the path of this folder.
        return value or None

    @property
    def is_on(self) -> bool:
        return self.cert_file is not None and self.key_file is not None


class TokenSettings(Section):
    """One line of `cachesvc token new`."""

    name: str = Field(pattern=f"^{ID_PATTERN}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    roles: tuple[Role, ...] = Field(min_length=1)
    expires: AwareDatetime | None = None


class GrantSettings(Section):
    """The grants that `access.file`, and also the settings, may hold."""

    certificates: dict[str, tuple[Role, ...]] = {}
    tokens: tuple[TokenSettings, ...] = ()


class AccessSettings(GrantSettings):
    """Who may call over TCP, and what the unix socket's group may do."""

    # Read again when it changes: a token is revoked without a restart.
    file: Path | None = None
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


def split_address(value: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`. Raises ValueError."""
    host, separator, port = value.rpartition(":")
    if not separator or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("the address must be host:port")
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Return whether only this host can reach `host:port`."""
    host, _ = split_address(address)
    return host in ("127.0.0.1", "::1", "localhost")


def read_grants(path: Path) -> GrantSettings:
    """Return the grants in `access.file`. Raises ConfigError: they cannot be read."""
    try:
        mode = path.stat().st_mode
        # Reading a FIFO or a device may never end.
        if not stat.S_ISREG(mode):
            raise ConfigError(f"access.file: {path} is not a regular file")
        if mode & 0o002:
            raise ConfigError(f"access.file: every user may write {path}: chmod o-w")
        return GrantSettings.model_validate(tomllib.loads(path.read_text()))
    except OSError as exc:
        raise ConfigError(f"access.file: {path}: {exc.strerror}") from exc
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in exc.errors()
        )
        raise ConfigError(f"access.file: {path}: {problems}") from exc
    except NOT_TOML as exc:
        raise ConfigError(f"access.file: {path} is not valid TOML: {exc}") from exc


def listener_problems(
    section: str, listen: str, tls: TlsSettings, access: AccessSettings
) -> list[str]:
    """Return the problems that make this listener unsafe, worded for its operator."""
    variable = f"{ENV_PREFIX}{section.upper()}__"
    problems = []
    if (tls.cert_file is None) != (tls.key_file is None):
        problems.append(f"{section}.tls needs both cert_file and key_file ({variable}TLS__...)")
    elif tls.client_ca_file is not None and not tls.is_on:
        problems.append(f"{section}.tls.client_ca_file needs cert_file and key_file as well")
    if not listen or is_loopback(listen):
        return problems
    if not tls.is_on:
        problems.append(
            f"{section}.listen ({variable}LISTEN): {listen} is not loopback (127.0.0.1, ::1, "
            f"localhost) and needs TLS: set {variable}TLS__CERT_FILE and {variable}TLS__KEY_FILE"
        )
    if not access.names_anybody():
        problems.append(
            f"{section}.listen ({variable}LISTEN): {listen} is not loopback, and no caller has "
            "a credential: set access.certificates, access.tokens or access.file (docs/security.md)"
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
