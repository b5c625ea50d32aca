"""Stats, gauges, warnings and kinds as one JSON object, for people.

Counts are since the start, sizes bytes, spans seconds. docs/http.md has every key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cachesvc import metrics
from cachesvc.config import Settings
from cachesvc.core import advice
from cachesvc.core.kinds import Kind
from cachesvc.core.tier import Tier
from cachesvc.edge import messages
from cachesvc.edge.certificates import Certificates
from cachesvc.edge.http.gauges import Gauges
from cachesvc.edge.statistics import Statistics
from cachesvc.engine.cache import Cache, Levels
from cachesvc.metrics import Metrics
from cachesvc_proto.v1 import cache_pb2 as pb

# Gauges by name, then by the value of the label ("" without a label).
GaugeValues = dict[str, dict[str, float]]


class StatusReport:
    """Reads the state of one daemon. Changes nothing."""

    def __init__(
        self,
        cache: Cache,
        statistics: Statistics,
        gauges: Gauges,
        registry: Metrics,
        settings: Settings,
        not_ready: Callable[[], dict[str, str]],
        certificates: Certificates,
    ) -> None:
        self._cache = cache
        self._statistics = statistics
        self._gauges = gauges
        self._metrics = registry
        self._settings = settings
        self._not_ready = not_ready
        self._certificates = certificates
        self._started_ns = cache.clock.read().steady_ns

    async def json(self) -> dict[str, Any]:
        """Return the report."""
        return self._json({name: values for name, _, _, values in await self._gauges.read()})

    def _json(self, gauges: GaugeValues) -> dict[str, Any]:
        stats, limits, levels = (
            self._statistics.response(),
            self._settings.limits,
            self._cache.levels(),
        )
        now, not_ready = self._cache.clock.read(), self._not_ready()
        return {
            "version": stats.version,
            "started_at": stats.started_at.ToJsonString(),
            "now": messages.moment(now.wall_ns),
            "uptime_s": round((now.steady_ns - self._started_ns) / 1e9, 3),
            "ready": not not_ready,
            "problems": not_ready,
            "warnings": [item._asdict() for item in self._advice(stats, levels, not_ready, gauges)],
            "requests": messages.request_counts(stats.requests),
            "latency": {tier: self._latency(tier) for tier in metrics.TIERS},
            "tiers": {
                Tier.MEMORY: {
                    **_tier(stats.memory),
                    "held_bytes": stats.held_bytes,
                    "free_bytes": gauges["filesystem_free_bytes"][Tier.MEMORY],
                },
                Tier.DISK: {
                    **_tier(stats.disk),
                    "pending_bytes": levels.pending_bytes,
                    "free_bytes": gauges["filesystem_free_bytes"][Tier.DISK],
                    "floor_bytes": int(gauges["disk_floor_bytes"][""]),
                    "high_watermark_bytes": int(gauges["disk_high_watermark_bytes"][""]),
                },
            },
            "loop_lag_s": round(gauges["loop_lag_seconds"][""], 4),
            "namespaces": [_namespace(name) for name in stats.namespaces],
            "kinds": [_kind(kind) for kind in self._cache.kinds.all],
            "flights": {"running": stats.flights, "max": limits.max_flights},
            "fills": {
                "started": stats.fills,
                "absent": self._metrics.value("absent_fills"),
                "failed": stats.failed_fills,
                "fenced": stats.fenced_fills,
                "max_concurrent": limits.max_concurrent_fills,
                "coalesced_waiters": stats.coalesced_waiters,
            },
            "origin": self._origin(levels),
            "invalidations": {
                "acknowledged": stats.invalidations,
                "unfinished": levels.unfinished_invalidations,
            },
            "puts": stats.puts,
            "damaged_entries": stats.damaged_entries,
            "decode_failures": stats.decode_failures,
            "absences": levels.absences,
        }

    def _origin(self, levels: Levels) -> dict[str, Any]:
        return {
            "kind": self._settings.origin.kind,
            "circuit": "open" if levels.is_origin_left_alone else "closed",
            "requests": {
                outcome: self._metrics.value("origin_requests", outcome=outcome)
                for outcome in metrics.ORIGIN_OUTCOMES
            },
        }

    def _latency(self, tier: str) -> dict[str, Any]:
        """Return a histogram; the difference between two readings gives percentiles."""
        seen = self._metrics.request_seconds.read(tier)
        return {
            "sum_s": round(seen.sum_s, 6),
            # JSON has no infinity.
            "buckets": [[None if math.isinf(le) else le, n] for le, n in seen.buckets],
        }

    def _advice(
        self,
        stats: pb.StatsResponse,
        levels: Levels,
        not_ready: dict[str, str],
        gauges: GaugeValues,
    ) -> list[advice.Advice]:
        count = self._metrics.value
        return advice.advise(
            advice.Readings(
                not_ready=not_ready,
                is_origin_left_alone=levels.is_origin_left_alone,
                unfinished_invalidations=levels.unfinished_invalidations,
                damaged_entries=stats.damaged_entries,
                decode_failures=stats.decode_failures,
                catalog_resets=count("catalog_resets"),
                disk_rejections=count("disk_rejections"),
                memory_max_bytes=stats.memory.max_bytes,
                held_bytes=stats.held_bytes,
                foreign_names=self._metrics.gauge("disk_foreign_names"),
                disk_free_bytes=int(gauges["filesystem_free_bytes"][Tier.DISK]),
                disk_floor_bytes=int(gauges["disk_floor_bytes"][""]),
                disk_max_bytes=stats.disk.max_bytes,
                disk_limit_in_force_bytes=int(gauges["disk_limit_in_force_bytes"][""]),
                loop_lag_s=gauges["loop_lag_seconds"][""],
                certificates=self._certificates.outlooks(),
            )
        )


def _tier(tier: pb.TierStats) -> dict[str, Any]:
    return {
        "entries": tier.entries,
        "size_bytes": tier.size_bytes,
        "max_bytes": tier.max_bytes,
        "fullness": round(tier.size_bytes / tier.max_bytes, 4),
        "evictions": tier.evictions,
        "expirations": tier.expirations,
    }


def _namespace(stats: pb.NamespaceStats) -> dict[str, Any]:
    return {
        "name": stats.namespace,
        "memory_entries": stats.memory_entries,
        "memory_bytes": stats.memory_bytes,
        "memory_max_entries": stats.memory_max_entries,
        "disk_entries": stats.disk_entries,
        "disk_bytes": stats.disk_bytes,
    }


def _kind(kind: Kind) -> dict[str, Any]:
    """Return what people want to know of a kind, without its place at the origin."""
    return {
        "name": kind.name,
        "namespaces": [namespace.name for namespace in kind.namespaces],
        "fields": list(kind.field_names),
        "subject": kind.subject.value,
        "private": kind.private,
        "version": kind.version,
        "max_entries": kind.max_entries,
        "max_bytes": kind.max_bytes,
        "ttl_s": kind.ttl_s,
        "stale_if_error_s": kind.stale_if_error_s,
        "absent_ttl_s": kind.absent_ttl_s,
    }
