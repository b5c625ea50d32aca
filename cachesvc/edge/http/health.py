"""The routes of probes, of Prometheus, and V2's /health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web

from cachesvc import metrics
from cachesvc.core.access import Action, Principal
from cachesvc.edge.http.gauges import Gauges
from cachesvc.edge.http.routes import Route
from cachesvc.edge.statistics import Statistics
from cachesvc.metrics import GaugeReading, Metrics
from cachesvc_format.namespaces import V2_COUNTS
from cachesvc_proto.v1 import cache_pb2 as pb

# What is not ready, by part; empty = ready.
NotReady = Callable[[], dict[str, str]]
_GIB = 1 << 30
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

    async def _readyz(self, _: web.Request, _caller: Principal) -> web.Response:
        problems = self._not_ready()
        status = "not ready" if problems else "ready"
        body = {"status": status, "problems": problems}
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


def v2_cache_stats(stats: pb.StatsResponse) -> dict[str, Any]:
    """Return V2's `cache_stats`. The client's `TwoLevelCacheV2.get_stats` says the same."""
    requests = stats.requests
    l1_hits = requests.memory_hits + requests.local_hits
    found = l1_hits + requests.disk_hits + requests.origin_fills
    total = found + requests.not_found + requests.failed
    in_memory = {name.namespace: name.memory_entries for name in stats.namespaces}
    return {
        "l1_hits": l1_hits,
        "l2_hits": requests.disk_hits,
        "l3_hits": requests.origin_fills,
        "evictions": stats.memory.evictions + stats.disk.evictions,
        "stampede_prevented": stats.coalesced_waiters,
        "total_requests": total,
        "l1_hit_rate": _percentage(l1_hits, total),
        "l2_hit_rate": _percentage(requests.disk_hits, total),
        **{key: in_memory.get(namespace, 0) for key, namespace in V2_COUNTS.items()},
        "l2_disk_usage_gb": round(stats.disk.size_bytes / _GIB, 2),
        "l2_disk_limit_gb": round(stats.disk.max_bytes / _GIB, 2),
    }


def _percentage(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
