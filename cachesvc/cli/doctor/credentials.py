"""Can the listeners' certificates and the callers' credentials be used, and are they well kept?"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cachesvc.cli.doctor.findings import Finding, Patient, error, ok, warning
from cachesvc.config_access import GrantSettings, TlsSettings, read_grants
from cachesvc.core.errors import ConfigError


def check_tls(patient: Patient) -> Iterator[Finding]:
    """Load what each TCP listener would, and look who may read its key."""
    settings = patient.settings
    for check, tls in (("grpc.tls", settings.grpc.tls), ("http.tls", settings.http.tls)):
        if tls.cert_file is None or tls.key_file is None:
            yield ok(check, "off")
        else:
            yield _pair(check, tls, tls.cert_file, tls.key_file)


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


def _pair(check: str, tls: TlsSettings, certificate: Path, key: Path) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
    except (OSError, ssl.SSLError) as exc:  # an SSLError is an OSError, said for the reader
        return error(
            check,
            f"{certificate} and {key} cannot be used together: {exc.strerror or exc}",
            "let the daemon's user read both, and take the key that belongs to the certificate",
        )
    if stat.S_IMODE(key.stat().st_mode) & stat.S_IRWXO:
        return warning(check, f"every user of this host may read {key}", f"chmod o= {key}")
    return ok(check, f"{certificate} and its key can be used")
