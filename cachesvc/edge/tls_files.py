"""Can these certificate and key files be used, and what is in them?"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from cachesvc.config_access import TlsSettings
from cachesvc.core.errors import ConfigError

_READABLE_BY_OTHERS = 0o007


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM bytes that belong together; `client_ca` empty = callers show no certificate."""

    certificate: bytes
    key: bytes
    client_ca: bytes


def paths_of(settings: TlsSettings) -> tuple[Path, ...]:
    """Return the files whose change matters."""
    named = (settings.cert_file, settings.key_file, settings.client_ca_file)
    return tuple(path for path in named if path is not None)


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context with the files loaded, for callers that may show a certificate.

    Raises:
        ConfigError: a file cannot be used; names it and why.
    """
    assert settings.cert_file is not None
    assert settings.key_file is not None
    _check_key_mode(settings.key_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Also finds a key that is not the certificate's: half of a rotation.
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_password)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{settings.cert_file} with {settings.key_file}: not a certificate and its "
            f"unencrypted key: {_reason(exc)}"
        ) from exc
    if settings.client_ca_file is not None:
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"{settings.client_ca_file}: not a CA certificate: {_reason(exc)}"
            ) from exc
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def read(settings: TlsSettings) -> TlsFiles:
    """Return the files' bytes, once they are known to be usable.

    Raises:
        ConfigError: as `server_context`, or a file changed meanwhile.
    """
    before = _bytes_of(settings)
    server_context(settings)
    # What was checked is what is returned, or a rotation could slip in between.
    if _bytes_of(settings) != before:
        raise ConfigError(f"{settings.cert_file}: changed while it was read")
    return before


def _bytes_of(settings: TlsSettings) -> TlsFiles:
    return TlsFiles(
        _read(settings.cert_file), _read(settings.key_file), _read(settings.client_ca_file)
    )


def _read(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc


def _check_key_mode(path: Path) -> None:
    """Refuse a key that every user of the host may read: it would prove nothing."""
    try:
        mode = path.stat().st_mode
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if mode & _READABLE_BY_OTHERS:
        raise ConfigError(
            f"{path}: others than its owner and group may use this key: chmod o-rwx "
            "(in a Kubernetes secret volume: defaultMode 0440)"
        )


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(exc: Exception) -> str:
    return getattr(exc, "reason", None) or getattr(exc, "strerror", None) or str(exc)
