"""The HTTP server: listener, limits, and what every request goes through.

path and Host -> could a foreign page have sent it? -> who calls, and may they?
-> the route, within a deadline -> errors as JSON, headers on everything
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Iterable

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from cachesvc.config import HttpSettings
from cachesvc.config.messages import setting
from cachesvc.config.values import split_address
from cachesvc.core.access import Action
from cachesvc.core.errors import CacheError, ConfigError, InvalidRequest
from cachesvc.edge.draining import UnderWay
from cachesvc.edge.http.access import HttpAccess, check_path
from cachesvc.edge.http.connections import Connections
from cachesvc.edge.http.errors import NotServed, error_response
from cachesvc.edge.http.routes import Route
from cachesvc.edge.http.tls import HANDSHAKE_S
from cachesvc.edge.statuses import DEFECT, DeadlineExceeded

log = structlog.get_logger()
# A warm-up of limits.max_warm_keys ids is the largest body there is.
MAX_BODY_BYTES = 256 << 10
MAX_HEADER_BYTES = 8190
MAX_HEADERS = 64
# A connection that is idle, or whose headers do not arrive, is closed after this time.
IDLE_S = 30.0
BACKLOG = 128
# A stop takes this time twice: aiohttp waits, cancels, and waits again. Work that a request began
# goes on in the engine, which drains after this server.
CLOSE_S = 0.5
# A stop does not wait for these, and answers them to the end: a scraper that never stops would hold
# it up.
LOOKS_ONLY = frozenset({Action.PROBE, Action.OBSERVE})
# The status page sets its own policy.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "cachesvc",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class HttpServer:
    """Serves `routes`. Every answer passes `_answer`, also the 404 for an unknown path."""

    def __init__(
        self,
        settings: HttpSettings,
        access: HttpAccess,
        routes: Iterable[Route],
        *,
        tls: ssl.SSLContext | None = None,
        deadline_s: float,
        idle_s: float = IDLE_S,
    ) -> None:
        self._access = access
        self._tls = tls
        self._deadline_s = deadline_s
        self._max_connections = settings.max_connections
        self._connections: Connections | None = None
        self._listener: asyncio.Server | None = None
        self._operations = UnderWay()
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._middleware()])
        for route in routes:
            app.router.add_route(route.method, route.path, self._guarded(route))
            if route.method == "GET":
                app.router.add_route("HEAD", route.path, self._guarded(route))
        self._runner = web.AppRunner(
            app,
            access_log=None,
            # Nothing is inflated for a stranger: handlers refuse a compressed body.
            auto_decompress=False,
            logger=_silent(),
            keepalive_timeout=idle_s,
            lingering_time=1.0,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            shutdown_timeout=CLOSE_S,
        )

    async def start(self, address: str) -> int:
        """Listen, and return the port.

        Raises:
            ConfigError: the server cannot listen on `address`.
        """
        host, port = split_address(address)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        self._connections = Connections(server, self._max_connections)
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._connections.accept,
                host,
                port,
                backlog=BACKLOG,
                reuse_port=False,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE_S if self._tls is not None else None,
            )
        except OSError as exc:
            raise ConfigError(
                f"{setting('http.listen')} is {address}: cannot listen there: {exc.strerror}; set "
                "another port, or nothing for no HTTP"
            ) from exc
        bound: int = self._listener.sockets[0].getsockname()[1]
        return bound

    async def drain(self, deadline_s: float) -> bool:
        """Refuse new operations and wait for the others. Probes are answered until `close`."""
        return await self._operations.drain(deadline_s)

    async def close(self) -> None:
        """Stop listening, and give requests under way a moment."""
        if self._listener is not None:
            self._listener.close()
        await self._runner.cleanup()

    def _guarded(self, route: Route) -> AiohttpHandler:
        async def handle(request: web.Request) -> web.StreamResponse:
            principal = self._access.admitted(request, route.action)
            if route.action in LOOKS_ONLY:
                return await route.handle(request, principal)
            self._operations.check_not_draining()
            self._operations.begin()
            try:
                return await route.handle(request, principal)
            finally:
                self._operations.end()

        return handle

    def _middleware(self) -> web.middleware:  # type: ignore[valid-type]
        @web.middleware
        async def answer(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
            assert self._connections is not None
            with self._connections.at_work(request):
                return await self._answer(request, handler)

        return answer

    async def _answer(self, request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
        started = time.monotonic()
        response: web.StreamResponse
        try:
            check_path(request.raw_path)
            self._access.check_source(request)
            async with asyncio.timeout(self._deadline_s):
                response = await handler(request)
        except CacheError as exc:
            response = error_response(exc)
        except web.HTTPException as exc:
            response = _refusal(exc)
        except TimeoutError:
            response = error_response(DeadlineExceeded(f"no answer within {self._deadline_s:g} s"))
        except Exception:  # a defect: its text may hold ids and paths, so only the log has it
            log.exception("http_request_failed")
            response = error_response(DEFECT)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        resource = request.match_info.route.resource
        log.debug(
            "http_request",
            method=request.method,
            # Log the route's pattern: the path has ids.
            route=resource.canonical if resource else "",
            status=response.status,
            ms=round((time.monotonic() - started) * 1000, 3),
        )
        return response


def _refusal(exc: web.HTTPException) -> web.Response:
    """Return aiohttp's own refusals as our errors."""
    if isinstance(exc, web.HTTPMethodNotAllowed):
        error = NotServed(
            "this path does not have this method; see the header Allow", reason="METHOD_NOT_ALLOWED"
        )
        response = error_response(error)
        response.headers["Allow"] = exc.headers["Allow"]
        return response
    if isinstance(exc, web.HTTPNotFound):
        return error_response(NotServed("no such path; see docs/http.md"))
    if isinstance(exc, web.HTTPRequestEntityTooLarge):
        return error_response(
            InvalidRequest(
                f"the body has more than {MAX_BODY_BYTES} bytes", reason="BODY_TOO_LARGE"
            )
        )
    return error_response(InvalidRequest("the request cannot be read", reason="INVALID_BODY"))


def _silent() -> logging.Logger:
    """Return a logger that drops aiohttp's lines on requests that it cannot parse.

    Such lines contain the request's bytes and ids, and any caller can cause any number of lines.
    `_answer` logs what our own handlers raise.
    """
    logger = logging.getLogger("cachesvc.http")
    logger.setLevel(logging.CRITICAL)
    return logger
