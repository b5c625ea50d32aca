"""The answer of Stats, which HTTP's routes show too."""

from __future__ import annotations

from cachesvc.core.leaving import Leaving
from cachesvc.core.tier import Tier
from cachesvc.edge.messages import timestamp
from cachesvc.engine.cache import Cache
from cachesvc.metrics import Metrics
from cachesvc.tiers.catalog_facts import Total
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.memory import MemoryTier
from cachesvc_proto.v1 import cache_pb2 as pb

# Workers report hit counts; a sum above uint64 would make protobuf raise and break Stats and
# /health.
_MAX_UINT64 = (1 << 64) - 1
# Of L1; L2 evicts for its space alone.
_EVICTIONS = (
    Leaving.ENTRIES_LIMIT,
    Leaving.BYTES_LIMIT,
    Leaving.TMPFS_FULL,
    Leaving.DESCRIPTORS,
)


class Statistics:
    """Reads the state of one daemon. Changes nothing. Belongs to the event loop."""

    def __init__(
        self, cache: Cache, memory: MemoryTier, disk: DiskTier, metrics: Metrics, version: str
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._disk = disk
        self._metrics = metrics
        self._version = version
        self._started = timestamp(cache.clock.read().wall_ns)

    def response(self) -> pb.StatsResponse:
        """Return the counts since the start, and the present sizes."""
        count = self._metrics.value
        return pb.StatsResponse(
            started_at=self._started,
            version=self._version,
            requests=pb.RequestStats(
                memory_hits=count("requests", tier=Tier.MEMORY),
                disk_hits=count("requests", tier=Tier.DISK),
                origin_fills=count("requests", tier=Tier.ORIGIN),
                not_found=count("unserved_requests", outcome="not_found"),
                failed=count("unserved_requests", outcome="failed"),
                local_hits=min(count("requests", tier="local"), _MAX_UINT64),
            ),
            namespaces=[self._namespace(name) for name in self._cache.kinds.namespaces],
            fills=count("fills"),
            failed_fills=count("failed_fills"),
            fenced_fills=count("fenced_fills"),
            coalesced_waiters=count("coalesced_waiters"),
            flights=self._cache.levels().flights,
            invalidations=count("invalidations"),
            puts=count("puts"),
            damaged_entries=count("damaged_entries"),
            decode_failures=count("decode_failures"),
            memory=self._memory_stats(),
            disk=self._disk_stats(),
            held_bytes=self._memory.held_bytes,
        )

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
            evictions=self._removals("memory_removals", *_EVICTIONS),
            expirations=self._removals("memory_removals", Leaving.EXPIRED),
        )

    def _disk_stats(self) -> pb.TierStats:
        return pb.TierStats(
            entries=sum(total.entries for total in self._disk.totals.values()),
            size_bytes=self._disk.room.used_bytes,
            max_bytes=self._disk.room.max_bytes,
            evictions=self._removals("disk_removals", Leaving.DISK_SPACE),
            expirations=self._removals("disk_removals", Leaving.EXPIRED),
        )

    def _removals(self, counter: str, *causes: Leaving) -> int:
        return sum(self._metrics.value(counter, reason=cause.value) for cause in causes)
