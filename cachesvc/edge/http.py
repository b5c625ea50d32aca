"""HTTP for probes and Prometheus: /livez, /readyz and /metrics, on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from cachesvc import config, metrics
from cachesvc.core.errors import ConfigError
from cachesvc.metrics import Metrics

# What is not ready, by part; empty = ready.
NotReady = Callable[[], dict[str, str]]


class HttpServer:
    """Answers while the daemon lives; `not_ready` decides /readyz."""

    def __init__(self, registry: Metrics, not_ready: NotReady) -> None:
        self._metrics = registry
        self._not_ready = not_ready
        app = web.Application(client_max_size=0)
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._scrape),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=30)

    async def start(self, address: str) -> int:
        """Listen, and return the port.

        Raises:
            ConfigError: the address is taken.
        """
        host, port = config.split_address(address)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_port=False)
        try:
            await site.start()
        except OSError as exc:
            raise ConfigError(
                f"{address}: cannot listen: {exc.strerror}; set CACHESVC_HTTP__LISTEN "
                "to another port, or to nothing for no HTTP"
            ) from exc
        bound: int = self._runner.addresses[0][1]
        return bound

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        problems = self._not_ready()
        status = "not ready" if problems else "ready"
        body = {"status": status, "problems": problems}
        return web.json_response(body, status=503 if problems else 200)

    async def _scrape(self, _: web.Request) -> web.Response:
        # Rendering takes milliseconds: not on the loop that answers hits.
        text = await asyncio.to_thread(self._metrics.render)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})
