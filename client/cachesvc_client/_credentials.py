"""How does a client show who it is, and may a token travel this way?

On the unix socket file modes say who calls, so nothing is shown there. Over TCP it
is TLS with or without a certificate, and a token in each call's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Optional

import grpc

Metadata = Optional[tuple[tuple[str, str], ...]]  # noqa: UP045 - evaluated, also on Python 3.10
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")


class TlsFiles(NamedTuple):
    """PEM files. `ca_file` empty = the system's; a certificate needs its key and the reverse."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what a channel needs. Raises OSError, ValueError."""
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("a client certificate needs both cert_file and key_file")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.cert_file),
        )


class Shown(NamedTuple):
    """What a channel and each of its calls show."""

    credentials: grpc.ChannelCredentials | None
    metadata: Metadata


def shown(
    address: str,
    credentials: grpc.ChannelCredentials | None,
    tls: TlsFiles | None,
    token: str | None,
    environment: Mapping[str, str],
) -> Shown:
    """Return what to show at `address`; the variables fill in what is not given.

    Raises:
        ValueError: a token would travel in the clear, or the TLS files do not go together.
        OSError: a TLS file cannot be read.
    """
    if address.startswith("unix:"):
        return Shown(credentials, None)
    if credentials is None:
        named = tls or _from(environment)
        credentials = None if named is None else named.credentials()
    token = token or environment.get("CACHESVC_TOKEN")
    if not token:
        return Shown(credentials, None)
    if credentials is None and not _is_loopback(address):
        raise ValueError(
            f"a token for {address} would travel in the clear: give tls=TlsFiles(...) or set "
            "CACHESVC_TLS_CA"
        )
    return Shown(credentials, (("authorization", f"Bearer {token}"),))


def _from(environment: Mapping[str, str]) -> TlsFiles | None:
    files = TlsFiles(*(environment.get(f"CACHESVC_TLS_{name}", "") for name in _VARIABLES))
    return files if any(files) else None


_VARIABLES = ("CA", "CERT", "KEY")


def _is_loopback(address: str) -> bool:
    for scheme in _SCHEMES:
        address = address.removeprefix(scheme)
    return address.rpartition(":")[0].strip("[]") in _LOOPBACK


def _read(file: str) -> bytes | None:
    return Path(file).read_bytes() if file else None
