"""Reads the certificate and key files, and checks that they can be used.

Every error names the setting whose file is wrong, so that one line says what to do: at the start,
in `cachesvc config` and `doctor`, and at a reload.
"""

from __future__ import annotations

import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cachesvc.config import Settings
from cachesvc.config.access import TlsSettings
from cachesvc.config.values import ENV_PREFIX
from cachesvc.core import certificates
from cachesvc.core.certificates import Validity
from cachesvc.core.errors import ConfigError

_READABLE_BY_OTHERS = 0o007
# A bundle of all public CAs has 220 KB.
_MAX_FILE_BYTES = 4 << 20
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
_ENCRYPTED = (b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED")
_OTHER_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")


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


def check_all(settings: Settings) -> None:
    """Raise ConfigError with the problems of the files of each listener that is on."""
    problems = []
    for listener, section in (("grpc", settings.grpc), ("http", settings.http)):
        if section.listen and section.tls.is_on:
            try:
                read(listener, section.tls)
            except ConfigError as exc:
                problems.append(str(exc))
    if problems:
        raise ConfigError("; ".join(problems))


def read(listener: str, settings: TlsSettings) -> TlsFiles:
    """Return the files' bytes after checking them. `listener`: `grpc`, `http`.

    Raises:
        ConfigError: a file cannot be used, or changed meanwhile.
    """
    return load(listener, settings)[0]


def load(listener: str, settings: TlsSettings) -> tuple[TlsFiles, ssl.SSLContext]:
    """Return the bytes, and a context made of them for callers that may show a certificate.

    Raises as `read`.
    """
    before = _bytes_of(listener, settings)
    context = _context(listener, settings, before)
    # Return only bytes that were checked: a rotation may have come in between.
    if _bytes_of(listener, settings) != before:
        raise ConfigError(f"{settings.cert_file}: changed while it was read")
    return before, context


@dataclass(frozen=True, slots=True)
class Dates:
    """The dates of all certificates in one listener's files; empty `authorities` = no client CA."""

    chain: tuple[Validity, ...]
    authorities: tuple[Validity, ...]

    @classmethod
    def of(cls, files: TlsFiles) -> Self:
        return cls(
            certificates.validities(files.certificate), certificates.validities(files.client_ca)
        )

    def at(self, wall_s: float) -> Iterator[tuple[str, Validity]]:
        """Yield the setting and the validity of each file."""
        yield "cert_file", certificates.of_chain(self.chain)
        if self.authorities:
            yield "client_ca_file", certificates.of_authorities(self.authorities, wall_s)


def _context(listener: str, settings: TlsSettings, files: TlsFiles) -> ssl.SSLContext:
    certificate, key = settings.cert_file, settings.key_file
    assert certificate is not None
    assert key is not None
    _check_key(listener, key, files.key)
    _check_certificates(listener, "cert_file", certificate, files.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Also finds a key that is not the certificate's: half a rotation.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as exc:
        if getattr(exc, "reason", None) in _OTHER_KEY:
            raise _problem(
                listener,
                "key_file",
                key,
                f"is not the key of the certificate in {certificate}",
            ) from exc
        raise _problem(
            listener, "key_file", key, f"cannot be used with {certificate}: {_reason(exc)}"
        ) from exc
    authority = settings.client_ca_file
    if authority is not None:
        _check_certificates(listener, "client_ca_file", authority, files.client_ca)
        try:
            context.load_verify_locations(authority)
        except (OSError, ValueError) as exc:
            raise _problem(
                listener, "client_ca_file", authority, f"cannot be used: {_reason(exc)}"
            ) from exc
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _check_certificates(listener: str, name: str, path: Path, pem: bytes) -> None:
    try:
        found = certificates.validities(pem)
    except ValueError as exc:
        raise _problem(listener, name, path, f"holds a damaged certificate: {exc}") from exc
    if not found:
        raise _problem(listener, name, path, "holds no certificate in PEM form")


def _check_key(listener: str, path: Path, pem: bytes) -> None:
    """Refuse an unusable key, and a key that every user of the host may read."""
    if path.stat().st_mode & _READABLE_BY_OTHERS:
        raise _problem(
            listener,
            "key_file",
            path,
            "users other than its owner and group may use this key: chmod o-rwx "
            "(in a Kubernetes secret volume: defaultMode 0440)",
        )
    if any(mark in pem for mark in _ENCRYPTED):
        raise _problem(
            listener,
            "key_file",
            path,
            "the key is encrypted, and nobody can be asked for its password: "
            "write it without a password (openssl pkey -in KEY -out PLAIN)",
        )
    if not _PRIVATE_KEY.search(pem):
        raise _problem(listener, "key_file", path, "holds no private key in PEM form")


def _bytes_of(listener: str, settings: TlsSettings) -> TlsFiles:
    return TlsFiles(
        _read(listener, "cert_file", settings.cert_file),
        _read(listener, "key_file", settings.key_file),
        _read(listener, "client_ca_file", settings.client_ca_file),
    )


def _read(listener: str, name: str, path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        status = path.stat()
        # Reading a FIFO or a device need not end.
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise _problem(listener, name, path, f"is {what}")
        if status.st_size > _MAX_FILE_BYTES:
            raise _problem(listener, name, path, f"has more than {_MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as exc:
        raise _problem(listener, name, path, exc.strerror or str(exc)) from exc


def _problem(listener: str, name: str, path: Path, what: str) -> ConfigError:
    variable = f"{ENV_PREFIX}{listener.upper()}__TLS__{name.upper()}"
    return ConfigError(f"{listener}.tls.{name} ({variable}): {path}: {what}")


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _reason(exc: Exception) -> str:
    return getattr(exc, "reason", None) or getattr(exc, "strerror", None) or str(exc)
