"""The routes of probes, of Prometheus, and V2's /health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from aiohttp import web

from cachesvc import metrics
from cachesvc.core.access import Action, Principal
from cachesvc.edge.http.access import ANYBODY
from cachesvc.edge.http.gauges import Gauges
from cachesvc.edge.http.routes import Route
from cachesvc.edge.statistics import Statistics
from cachesvc.metrics import GaugeReading, Metrics
from cachesvc_format.v2_stats import v2_cache_stats

# What is not ready, by part; empty = ready.
NotReady = Callable[[], dict[str, str]]
# V2's own text: scripts compare it.
_CACHING = "2-Level (L1: Memory LRU, L2: SSD)"


class HealthRoutes:
    """Answers while the daemon lives; `not_ready` decides /readyz and /health.

    `more_gauges` returns a scrape's gauges that are not the cache's.
    """

    def __init__(
        self,
        registry: Metrics,
        statistics: Statistics,
        gauges: Gauges,
        not_ready: NotReady,
        more_gauges: Callable[[], Iterable[GaugeReading]] = tuple,
    ) -> None:
        self._metrics = registry
        self._more_gauges = more_gauges
        self._statistics = statistics
        self._gauges = gauges
        self._not_ready = not_ready

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/livez", Action.PROBE, self._livez),
            Route("GET", "/readyz", Action.PROBE, self._readyz),
            Route("GET", "/health", Action.OBSERVE, self._health),
            Route("GET", "/metrics", Action.OBSERVE, self._scrape),
        ]

    async def _livez(self, _: web.Request, _caller: Principal) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request, caller: Principal) -> web.Response:
        problems = self._not_ready()
        body: dict[str, object] = {"status": "not ready" if problems else "ready"}
        if caller is not ANYBODY:
            body["problems"] = problems
        return web.json_response(body, status=503 if problems else 200)

    async def _scrape(self, _: web.Request, _caller: Principal) -> web.Response:
        is_ready: dict[str, float] = {"": float(not self._not_ready())}
        ready = ("ready", "1 while /readyz says so.", "", is_ready)
        gauges = [*await self._gauges.read(), *self._more_gauges(), ready]
        # Rendering takes milliseconds: not on the loop that answers hits.
        text = await asyncio.to_thread(self._metrics.render, gauges)
        return web.Response(body=text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _health(self, _: web.Request, _caller: Principal) -> web.Response:
        problems = self._not_ready()
        stats = self._statistics.response()
        body = {
            "status": "unhealthy" if problems else "healthy",
            # The inference server loads the models, not this process.
            "models_loaded": False,
            "caching": _CACHING,
            "cache_stats": v2_cache_stats(stats),
            "version": stats.version,
            "problems": problems,
        }
        return web.json_response(body, status=503 if problems else 200)
