"""The counters and gauges as they are shown: for Stats, and for a scrape."""

from __future__ import annotations

from collections.abc import Iterable

from cachesvc.core.lru import Removal
from cachesvc.edge.messages import timestamp
from cachesvc.engine.cache import Cache
from cachesvc.metrics import GaugeReading, Metrics
from cachesvc.tiers.catalog_rows import Total
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.memory import MemoryTier
from cachesvc_proto.v1 import cache_pb2 as pb

_ROOM_REASONS = (Removal.ENTRIES_LIMIT, Removal.BYTES_LIMIT, Removal.DISK_SPACE)


class Statistics:
    """Reads the state of one daemon. Changes nothing."""

    def __init__(
        self, cache: Cache, memory: MemoryTier, disk: DiskTier, metrics: Metrics, version: str
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._disk = disk
        self._metrics = metrics
        self._version = version
        self._started = timestamp(cache.state.clock.read().wall_ns)

    def response(self) -> pb.StatsResponse:
        count = self._metrics.value
        return pb.StatsResponse(
            started_at=self._started,
            version=self._version,
            requests=pb.RequestStats(
                memory_hits=count("requests", tier="memory"),
                disk_hits=count("requests", tier="disk"),
                origin_fills=count("requests", tier="origin"),
                not_found=count("request_failures", outcome="not_found"),
                failed=count("request_failures", outcome="failed"),
                local_hits=count("requests", tier="local"),
            ),
            namespaces=[self._namespace(name) for name in self._cache.state.kinds.namespaces],
            fills=count("fills"),
            failed_fills=count("failed_fills"),
            fenced_fills=count("fenced_fills"),
            coalesced_waiters=count("coalesced_waiters"),
            flights=len(self._cache.state.flights),
            invalidations=count("invalidations"),
            puts=count("puts"),
            damaged_entries=count("damaged_entries"),
            decode_failures=count("decode_failures"),
            memory=self._memory_stats(),
            disk=self._disk_stats(),
            held_bytes=self._memory.held_bytes,
        )

    def gauges(self) -> Iterable[GaugeReading]:
        """Yield the gauges for a scrape; see docs/metrics.md."""
        names = self._cache.state.kinds.namespaces
        memory = {name: self._memory.index.usage[name] for name in names}
        disk = {name: self._disk.totals.get(name, Total()) for name in names}
        state = self._cache.state
        yield (
            "memory_entries",
            "Entries in L1.",
            "namespace",
            {name: usage.entries for name, usage in memory.items()},
        )
        yield (
            "memory_bytes",
            "Bytes in L1.",
            "namespace",
            {name: usage.size_bytes for name, usage in memory.items()},
        )
        yield (
            "disk_entries",
            "Entries in L2.",
            "namespace",
            {name: total.entries for name, total in disk.items()},
        )
        yield (
            "disk_bytes",
            "Bytes in L2.",
            "namespace",
            {name: total.stored_bytes for name, total in disk.items()},
        )
        yield (
            "tier_max_bytes",
            "The tier's limit.",
            "tier",
            {"memory": self._memory.index.max_bytes, "disk": self._disk.max_bytes},
        )
        yield (
            "queue_depth",
            "Work that waits.",
            "queue",
            {
                "catalog": self._disk.queue_depth,
                "flights": len(state.flights),
                "unfinished_removals": self._cache.unfinished_removals,
            },
        )
        circuit: dict[str, float] = {"": float(self._cache.is_origin_left_alone)}
        yield ("origin_circuit_open", "1 while the origin is left alone.", "", circuit)
        absences: dict[str, float] = {"": len(state.absences)}
        yield ("absences", "Absences remembered.", "", absences)
        pending: dict[str, float] = {"": state.pending_commit_bytes}
        yield ("disk_pending_bytes", "Bytes that wait to be written to L2.", "", pending)
        held: dict[str, float] = {"": self._memory.held_bytes}
        yield ("held_bytes", "Bytes evicted from L1 that readers still hold.", "", held)

    def _namespace(self, name: str) -> pb.NamespaceStats:
        usage = self._memory.index.usage[name]
        total = self._disk.totals.get(name, Total())
        return pb.NamespaceStats(
            namespace=name,
            memory_entries=usage.entries,
            memory_bytes=usage.size_bytes,
            memory_max_entries=self._memory.index.limits[name].max_entries,
            disk_entries=total.entries,
            disk_bytes=total.stored_bytes,
        )

    def _memory_stats(self) -> pb.TierStats:
        index = self._memory.index
        return pb.TierStats(
            entries=len(index),
            size_bytes=index.used_bytes,
            max_bytes=index.max_bytes,
            evictions=self._removals("memory_removals", *_ROOM_REASONS),
            expirations=self._removals("memory_removals", Removal.EXPIRED),
        )

    def _disk_stats(self) -> pb.TierStats:
        return pb.TierStats(
            entries=sum(total.entries for total in self._disk.totals.values()),
            size_bytes=self._disk.used_bytes,
            max_bytes=self._disk.max_bytes,
            evictions=self._removals("disk_removals", *_ROOM_REASONS),
            expirations=self._removals("disk_removals", Removal.EXPIRED),
        )

    def _removals(self, counter: str, *causes: Removal) -> int:
        return sum(self._metrics.value(counter, reason=cause.value) for cause in causes)
