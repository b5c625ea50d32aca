"""Can the listeners' certificates and the callers' credentials be used, and are they well kept?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.config_access import GrantSettings, TlsSettings, read_grants
from cachesvc.core.errors import ConfigError
from cachesvc.edge import tls_files


def check_tls(patient: Patient) -> Iterator[Finding]:
    """Load what each TCP listener would, as it would."""
    settings = patient.settings
    for check, tls in (("grpc.tls", settings.grpc.tls), ("http.tls", settings.http.tls)):
        yield _pair(check, tls) if tls.is_on else ok(check, "off")


def check_grants(patient: Patient) -> Iterator[Finding]:
    """Say which callers are known, and whose token is over."""
    check, access = "access", patient.settings.access
    try:
        access.load_grants()
        parts: list[GrantSettings] = [access]
        if access.file is not None:
            parts.append(read_grants(access.file))
    except ConfigError as exc:
        yield error(check, str(exc), "mend the file; until then the grants before it stay in force")
        return
    now = datetime.now(UTC)
    tokens = [token for part in parts for token in part.tokens]
    over = [token.name for token in tokens if token.expires is not None and token.expires <= now]
    if over:
        yield warning(
            check,
            f"tokens that are over: {', '.join(over)}",
            "give their holders new ones, and remove these",
        )
    else:
        certificates = sum(len(part.certificates) for part in parts)
        yield ok(check, f"{certificates} certificates and {len(tokens)} tokens are known")


def _pair(check: str, tls: TlsSettings) -> Finding:
    try:
        tls_files.server_context(tls)
    except ConfigError as exc:
        return error(
            check,
            str(exc),
            "mend the files: the daemon does not start with them, and one that runs keeps the old",
        )
    return ok(check, f"{tls.cert_file} and its key can be used")
