"""Checks the listeners' certificates and the callers' credentials."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.config.access import GrantSettings, TlsSettings, read_grants
from cachesvc.core.certificates import Outlook
from cachesvc.core.errors import ConfigError
from cachesvc.edge import tls_files
from cachesvc.edge.tls_files import Dates, TlsFiles

_RENEW = "rename a new file over it; the daemon reads it without a restart"


def check_tls(patient: Patient) -> Iterator[Finding]:
    """Load the TLS files as each TCP listener would."""
    settings = patient.settings
    for listener, tls in (("grpc", settings.grpc.tls), ("http", settings.http.tls)):
        check = f"{listener}.tls"
        yield _files(check, listener, tls) if tls.is_on else ok(check, "this listener has no TLS")


def check_grants(patient: Patient) -> Iterator[Finding]:
    """Count the known callers, and name the expired tokens."""
    check, access = "access", patient.settings.access
    try:
        access.load_grants()
        parts: list[GrantSettings] = [access]
        if access.file is not None:
            parts.append(read_grants(access.file))
    except ConfigError as exc:
        yield error(
            check,
            str(exc),
            "correct the file; until then the running daemon keeps the earlier grants",
        )
        return
    now = datetime.now(UTC)
    tokens = [token for part in parts for token in part.tokens]
    over = [token.name for token in tokens if token.expires is not None and token.expires <= now]
    if over:
        yield warning(
            check,
            f"these tokens have expired: {', '.join(over)}",
            "give their holders new tokens, and delete these",
        )
    else:
        certificates = sum(len(part.certificates) for part in parts)
        yield ok(check, f"{certificates} certificates and {len(tokens)} tokens are known")


def _files(check: str, listener: str, tls: TlsSettings) -> Finding:
    try:
        files = tls_files.read(listener, tls)
    except ConfigError as exc:
        return error(
            check,
            str(exc),
            "correct the files: the daemon does not start with them, and a running daemon keeps "
            "the old files",
        )
    return _dates(check, tls, files)


def _dates(check: str, tls: TlsSettings, files: TlsFiles) -> Finding:
    """Report the worst date: expired or not yet valid first, then a date that is near."""
    now_s = time.time()
    ends = []
    found = {}
    for name, dates in Dates.of(files).at(now_s):
        path, outlook = getattr(tls, name), dates.outlook(now_s)
        ends.append(f"{path} until {_text(dates.ends_s)}")
        found[outlook] = f"{path} is valid from {_text(dates.starts_s)} until {_text(dates.ends_s)}"
    for outlook, what in (
        (Outlook.EXPIRED, "it has expired, so every handshake that needs it fails"),
        (Outlook.NOT_YET, "it is not valid yet, or this host's clock is wrong"),
    ):
        if outlook in found:
            return error(check, f"{found[outlook]}: {what}", f"{_RENEW}; check the clock")
    if Outlook.ENDS_SOON in found:
        return warning(check, f"{found[Outlook.ENDS_SOON]}: it expires soon", _RENEW)
    return ok(check, f"the files are valid: {', '.join(ends)}")


def _text(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
