"""TLS for HTTP: a context whose files are read again when they change.

`load_verify_locations` can only add to a context, so a CA that was taken away would stay. Therefore
`wrap_bio`, the only method that asyncio uses of a context, hands each new connection to the newest
context.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from cachesvc.config.access import TlsSettings
from cachesvc.core.credentials import NameKind, SubjectName
from cachesvc.edge import tls_files
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.reloading import Reloaded

# For a caller that stalls in the handshake; aiohttp's own limits begin after it.
HANDSHAKE_S = 3.0
_KINDS: dict[str, Callable[[str], SubjectName]] = {
    "DNS": SubjectName.dns,
    "URI": lambda text: SubjectName(NameKind.URI, text),
    "IP Address": SubjectName.parse,
    "email": lambda text: SubjectName(NameKind.EMAIL, text),
}


class ReloadedContext(ssl.SSLContext):
    """The context that asyncio listens with."""

    _files: Reloaded[ssl.SSLContext]

    @classmethod
    def of(
        cls,
        settings: TlsSettings,
        certificates: Certificates,
        on_failure: Callable[[], None] = lambda: None,
        on_handshake_failure: Callable[[], None] = lambda: None,
    ) -> Self:
        """Raises ConfigError if the files cannot be used; later `on_failure` counts that."""
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        counted = type("Counted", (_Handshake,), {"on_failure": staticmethod(on_handshake_failure)})

        def make(_: tls_files.TlsFiles, loaded: ssl.SSLContext) -> ssl.SSLContext:
            loaded.sslobject_class = counted
            return loaded

        context._files = certificates.reloaded("http", settings, make, on_failure)
        return context

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        return self._files.current().wrap_bio(*args, **options)


class _Handshake(ssl.SSLObject):
    """One connection. It reports a failed handshake, which asyncio does not."""

    on_failure: Callable[[], None]

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            self.on_failure()
            raise


def certificate_names(request: web.Request) -> tuple[SubjectName, ...]:
    """Return the names in the certificate that the caller showed and TLS has checked."""
    transport = request.transport
    shown = transport.get_extra_info("peercert") if transport is not None else None
    sans = (shown or {}).get("subjectAltName", ())
    return tuple(_KINDS[kind](value) for kind, value in sans if kind in _KINDS)


def has_certificate(request: web.Request) -> bool:
    transport = request.transport
    return bool(transport is not None and transport.get_extra_info("peercert"))
