"""What a client shows to a daemon: a certificate, a token, or nothing.

On the unix socket the file's mode decides who may call, so the client shows nothing. Over TCP it
uses TLS with or without a certificate, and a token in each call's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

import grpc

from cachesvc_client._arguments import check_as, check_settings
from cachesvc_client.errors import InvalidSettings

if TYPE_CHECKING:
    import ssl

Metadata = Optional[tuple[tuple[str, str], ...]]  # noqa: UP045 - evaluated, also on Python 3.10
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")


class TlsFiles(NamedTuple):
    """PEM files. `ca_file` empty = the system's CAs; `cert_file` and `key_file` need each other."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return a channel's credentials. Raises InvalidSettings, which names the file."""
        check_settings(self._asdict())
        if bool(self.cert_file) != bool(self.key_file):
            raise InvalidSettings(
                "a client certificate needs both cert_file (CACHESVC_TLS_CERT) and key_file "
                "(CACHESVC_TLS_KEY)",
                reason="TLS_FILES_INVALID",
            )
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca_file, "ca_file (CACHESVC_TLS_CA)"),
            private_key=_read(self.key_file, "key_file (CACHESVC_TLS_KEY)"),
            certificate_chain=_read(self.cert_file, "cert_file (CACHESVC_TLS_CERT)"),
        )
        # Check the files: gRPC accepts any bytes, and then every handshake fails.
        self.context()
        return credentials

    def context(self) -> ssl.SSLContext:
        """Return an equal context of the standard library. Raises InvalidSettings."""
        import ssl  # takes 10 ms, and only TLS needs it

        check_settings(self._asdict())
        # Not create_default_context: its flags are stricter than gRPC.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.ca_file:
            context.load_default_certs()
        else:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except (OSError, ValueError) as exc:
                raise _unusable(
                    "ca_file (CACHESVC_TLS_CA)", self.ca_file, "no PEM certificate"
                ) from exc
        if self.cert_file:
            self._load_own(context)
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        import ssl

        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_no_password)
        except ssl.SSLError as exc:
            if "MISMATCH" in (exc.reason or ""):
                raise InvalidSettings(
                    f"TLS: the key {self.key_file} (CACHESVC_TLS_KEY) is not that of the "
                    f"certificate {self.cert_file} (CACHESVC_TLS_CERT)",
                    reason="TLS_FILES_INVALID",
                ) from exc
            both = f"{self.cert_file} and {self.key_file}"
            named = "cert_file and key_file (CACHESVC_TLS_CERT, CACHESVC_TLS_KEY)"
            raise _unusable(named, both, "no PEM certificate with its key") from exc
        except (OSError, ValueError) as exc:
            named = "key_file (CACHESVC_TLS_KEY)"
            raise _unusable(named, self.key_file, "cannot be read without a password") from exc


class Shown(NamedTuple):
    """The credentials of a channel, and the metadata of each of its calls."""

    credentials: grpc.ChannelCredentials | None
    metadata: Metadata


def shown(
    address: str,
    credentials: grpc.ChannelCredentials | None,
    tls: TlsFiles | None,
    token: str | None,
    environment: Mapping[str, str],
) -> Shown:
    """Return what to show at `address`; variables replace arguments that are not given.

    Raises:
        InvalidSettings: a token would travel in the clear, or a TLS file cannot be used.
    """
    if address.startswith("unix:"):
        return Shown(credentials, None)
    named = files_for(credentials, tls, environment)
    if named is not None:
        credentials = named.credentials()
    token = token or environment.get("CACHESVC_TOKEN")
    if not token:
        return Shown(credentials, None)
    check_as("token", token, "token (CACHESVC_TOKEN)", error=InvalidSettings)
    if credentials is None and not _is_loopback(address):
        raise InvalidSettings(
            f"a token for {address} would travel in the clear: give tls=TlsFiles(...) or set "
            "CACHESVC_TLS_CA",
            reason="TOKEN_IN_THE_CLEAR",
        )
    return Shown(credentials, (("authorization", f"Bearer {token}"),))


def files_for(
    credentials: grpc.ChannelCredentials | None,
    tls: TlsFiles | None,
    environment: Mapping[str, str],
) -> TlsFiles | None:
    """Return the TLS files in force over TCP; None without TLS, or with gRPC's `credentials`."""
    if credentials is not None or tls is not None:
        return None if credentials is not None else tls
    files = TlsFiles(*(environment.get(f"CACHESVC_TLS_{name}", "") for name in _VARIABLES))
    return files if any(files) else None


_VARIABLES = ("CA", "CERT", "KEY")


def _is_loopback(address: str) -> bool:
    for scheme in SCHEMES:
        address = address.removeprefix(scheme)
    return address.rpartition(":")[0].strip("[]") in _LOOPBACK


def _read(file: str, named: str) -> bytes | None:
    try:
        return Path(file).read_bytes() if file else None
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise _unusable(named, file, f"{why}") from exc


def _unusable(named: str, file: str, why: str) -> InvalidSettings:
    return InvalidSettings(f"TLS: {named} {file}: {why}", reason="TLS_FILES_INVALID")


def _no_password() -> str:
    # OpenSSL would otherwise ask at the terminal.
    raise ValueError("the key is encrypted")
