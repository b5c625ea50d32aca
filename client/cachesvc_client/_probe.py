"""Finds out why a call over TCP failed; never runs before a failure.

gRPC reports UNAVAILABLE for an unknown name, a wrong CA and a daemon that restarts. Only the last
is worth a wait. So the probe makes one connection with the standard library's TLS, and its result
becomes the error. It runs in its own thread: a name look-up has no deadline.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cachesvc_client._credentials import SCHEMES, TlsFiles
from cachesvc_client.errors import InvalidSettings

if TYPE_CHECKING:
    import ssl

# A failed call waits at most this long for the cause; a handshake on one host takes 3 ms.
WITHIN_S = 2.0
_STEP_S = 1.0
# A daemon that ends may close one connection like this, but not also the next.
_AGAIN_AFTER_S = 0.1
# A client's first bytes in HTTP/2: the preface, and settings that change nothing.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
# OpenSSL's verdicts on the peer's certificate (x509_vfy.h).
_EXPIRED, _NOT_YET_VALID = 10, 9
_OTHER_NAME = (62, 64)


class Cause(NamedTuple):
    """`reason` is empty for a cause that may pass, such as a restart of the daemon."""

    reason: str
    text: str


@dataclass(frozen=True)
class Wire:
    """How a client connects over TCP. `speaks_tls` without `tls`: with gRPC's credentials."""

    address: str
    speaks_tls: bool
    tls: TlsFiles | None


def begin(wire: Wire) -> Future[Cause | None]:
    """Start to look for the cause; the result None = nothing is wrong now."""
    future: Future[Cause | None] = Future()
    future.set_running_or_notify_cancel()  # a waiter that stops waiting cannot cancel it

    def look() -> None:
        cause = None
        try:
            cause = cause_of(wire)
        finally:
            future.set_result(cause)

    threading.Thread(target=look, name="cachesvc-probe", daemon=True).start()
    return future


def cause_of(wire: Wire) -> Cause | None:
    """Connect as gRPC would, and return what prevents it."""
    where = _host_and_port(wire.address)
    if where is None:
        return None  # one of gRPC's own schemes
    host, port = where
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        known = exc.errno not in (socket.EAI_AGAIN, socket.EAI_SYSTEM)
        return Cause(reason="NAME_UNKNOWN" if known else "", text=f"{host}: {exc.strerror}")
    try:
        if not wire.speaks_tls:
            return _plain(host, port)
        return _over_tls(host, port, wire.tls)
    except InvalidSettings as exc:  # a file that was there when the client was made
        return Cause(reason="", text=exc.message)
    except OSError as exc:
        return Cause(reason="", text=f"{host}:{port}: {exc.strerror or exc}")


def _host_and_port(address: str) -> tuple[str, int] | None:
    for scheme in SCHEMES:
        address = address.removeprefix(scheme)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return None
    return host.strip("[]"), int(port)


def _connected(host: str, port: int) -> socket.socket:
    return socket.create_connection((host, port), _STEP_S)


def _plain(host: str, port: int) -> Cause | None:
    with _connected(host, port) as connection:
        connection.sendall(_GREETING)
        # An HTTP/2 server sends at once. A TLS server sends an alert, or hangs up.
        with contextlib.suppress(ConnectionError):
            first = connection.recv(1)
            if first and first != b"\x15":
                return None
    if not _speaks_tls(host, port):
        return Cause(reason="", text=f"{host}:{port} closes the connection")
    return Cause(
        reason="TLS_REQUIRED",
        text=f"{host}:{port} speaks TLS and this client does not; give tls=TlsFiles(...) or set "
        "CACHESVC_TLS_CA",
    )


def _speaks_tls(host: str, port: int) -> bool:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        contextlib.suppress(OSError),
        _connected(host, port) as connection,
        context.wrap_socket(connection),
    ):
        return True
    return False


def _over_tls(host: str, port: int, tls: TlsFiles | None) -> Cause | None:
    import ssl

    if tls is None:
        # The credentials are opaque: only gRPC knows which certificates they accept.
        return None if _speaks_tls(host, port) else _no_tls(host, port)
    context = tls.context()
    context.set_alpn_protocols(["h2"])
    try:
        for attempt in range(2):
            if _is_welcome(host, port, context):
                return None
            if not attempt:
                time.sleep(_AGAIN_AFTER_S)  # in the probe's own thread; the caller limits its wait
    except ssl.SSLCertVerificationError as exc:
        return _certificate(host, port, exc)
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):  # Python 3.11.2 raises the latter
        return Cause(reason="", text=f"{host}:{port} closes the connection")
    except ssl.SSLError as exc:
        return _alert(host, port, exc, tls)
    return _not_let_in(host, port, tls, "")


def _is_welcome(host: str, port: int, context: ssl.SSLContext) -> bool:
    """Return whether the server sends data after it has seen our certificate.

    In TLS 1.3 a server checks that after the client's handshake, and gRPC's server hangs up without
    an alert.
    """
    import ssl

    with (
        _connected(host, port) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
        # A reset may overtake the alert that was sent before it.
        contextlib.suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError),
    ):
        secured.sendall(_GREETING)
        return bool(secured.recv(1))
    return False


def _certificate(host: str, port: int, exc: ssl.SSLCertVerificationError) -> Cause:
    says = f"the certificate of {host}:{port}"
    if exc.verify_code == _EXPIRED:
        text = f"{says} has expired; renew it, or mend this host's clock"
        return Cause(reason="TLS_EXPIRED", text=text)
    if exc.verify_code == _NOT_YET_VALID:
        text = f"{says} is not valid yet; is this host's clock right?"
        return Cause(reason="TLS_NOT_YET_VALID", text=text)
    if exc.verify_code in _OTHER_NAME:
        return Cause(
            reason="TLS_NAME_MISMATCH",
            text=f"{says} is not for {host}; use a name or an address that the certificate has",
        )
    return Cause(
        reason="TLS_CA_UNKNOWN",
        text=f"no CA that is trusted here has issued {says} ({exc.verify_message}); name its CA in "
        "tls.ca_file (CACHESVC_TLS_CA)",
    )


def _alert(host: str, port: int, exc: ssl.SSLError, tls: TlsFiles) -> Cause:
    word = exc.reason or ""
    if "ALERT" in word and any(part in word for part in ("CERT", "CA", "DENIED", "HANDSHAKE")):
        return _not_let_in(host, port, tls, f" ({word})")
    if "ALERT" in word:
        return Cause(reason="TLS_FAILED", text=f"{host}:{port} refuses the TLS handshake ({word})")
    return _no_tls(host, port)


def _no_tls(host: str, port: int) -> Cause:
    return Cause(
        reason="TLS_NOT_SPOKEN",
        text=f"{host}:{port} does not speak TLS; switch it on there (grpc.tls), or unset "
        "CACHESVC_TLS_CA, CACHESVC_TLS_CERT and CACHESVC_TLS_KEY here",
    )


def _not_let_in(host: str, port: int, tls: TlsFiles, why: str) -> Cause:
    if not tls.cert_file:
        return Cause(
            reason="TLS_CERTIFICATE_REQUIRED",
            text=f"{host}:{port} demands a client certificate{why}; give tls.cert_file and "
            "tls.key_file (CACHESVC_TLS_CERT, CACHESVC_TLS_KEY)",
        )
    return Cause(
        reason="TLS_CERTIFICATE_REFUSED",
        text=f"{host}:{port} refuses the client certificate {tls.cert_file}{why}: it has "
        "expired, or the CA in the daemon's grpc.tls.client_ca_file has not issued it",
    )
