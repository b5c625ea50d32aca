"""Are the TLS handshakes counted that fail over HTTP, and only those? Promise 10.

The real server on a real socket, and callers that asyncio makes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import ClientSession, TCPConnector, web

from cachesvc.config import HttpSettings
from cachesvc.config.access import TlsSettings
from cachesvc.core.access import Action, Principal
from cachesvc.core.clock import Clock
from cachesvc.core.credentials import Grants
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.http.access import HttpAccess
from cachesvc.edge.http.routes import Route
from cachesvc.edge.http.server import HttpServer
from cachesvc.edge.http.tls import ReloadedContext
from tests.support.certificates import HERE, Authority, Certificate

OURS = Authority("ours")
PLAIN = b"GET /it HTTP/1.1\r\nHost: localhost\r\n\r\n"
# The beginning of a ClientHello: a record of 512 bytes is announced.
HALF_A_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
CERTIFICATES: dict[str, Callable[[], Certificate]] = {
    "foreign": lambda: Authority("theirs").issue("observer.example"),
    "expired": lambda: OURS.issue("observer.example", expired=True),
    "early": lambda: OURS.issue("observer.example", early=True),
}


@dataclass
class Listener:
    folder: Path
    port: int = 0
    failures: list[None] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve `/it` over TLS."""
        certificate, key = OURS.issue(sans=HERE).write(self.folder, "server")
        settings = HttpSettings.model_validate(
            {
                "tls": TlsSettings(
                    cert_file=certificate, key_file=key, client_ca_file=OURS.write(self.folder)
                )
            }
        )
        clock = Clock()
        server = HttpServer(
            settings,
            HttpAccess(settings, lambda: Grants({}, []), clock),
            [Route("GET", "/it", Action.OBSERVE, fine)],
            tls=ReloadedContext.of(
                settings.tls,
                Certificates(clock),
                on_handshake_failure=lambda: self.failures.append(None),
            ),
            deadline_s=20.0,
        )
        self.port = await server.start("127.0.0.1:0")
        try:
            yield
        finally:
            await server.close()

    def context(self, certificate: Certificate | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=OURS.pem.decode())
        if certificate is not None:
            context.load_cert_chain(*certificate.write(self.folder, "caller"))
        return context

    async def call(self, sent: bytes, context: ssl.SSLContext | None = None) -> None:
        """Connect, send, and return once the server has hung up."""
        with suppress(OSError):  # a refusal
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
            try:
                writer.write(sent)
                if context is None:
                    writer.write_eof()
                await reader.read()
            finally:
                writer.close()
                await writer.wait_closed()


async def fine(_: web.Request, _caller: Principal) -> web.Response:
    return web.json_response({"fine": True})


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    listener = Listener(tmp_path)
    async with listener.serving():
        yield listener


@pytest.mark.parametrize("what", CERTIFICATES)
async def test_a_certificate_that_is_refused_is_a_failure(listener: Listener, what: str) -> None:
    await listener.call(PLAIN, listener.context(CERTIFICATES[what]()))
    assert len(listener.failures) == 1


async def test_a_request_without_tls_is_a_failure(listener: Listener) -> None:
    await listener.call(PLAIN)
    assert len(listener.failures) == 1


@pytest.mark.parametrize("sent", [b"", HALF_A_HELLO], ids=["nothing", "half a hello"])
async def test_a_caller_that_leaves_is_no_failure(listener: Listener, sent: bytes) -> None:
    """Otherwise each probe of the port, which opens and closes it, would count."""
    await listener.call(sent)
    assert listener.failures == []


@pytest.mark.parametrize("shows", [False, True], ids=["no certificate", "ours"])
async def test_a_handshake_that_succeeds_is_no_failure(listener: Listener, shows: bool) -> None:
    context = listener.context(OURS.issue("observer.example") if shows else None)
    url = f"https://127.0.0.1:{listener.port}/it"
    async with ClientSession(connector=TCPConnector(force_close=True)) as session:
        answer = await session.get(url, ssl=context)
        assert answer.status == (401 if shows else 200)
    assert listener.failures == []
