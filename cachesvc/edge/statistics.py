"""The counters and gauges of Stats and of a scrape.

Their state belongs to the event loop and is read there without an await: a thread would see it
change during the read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cachesvc.core.leaving import Leaving
from cachesvc.core.tier import Tier
from cachesvc.edge.messages import timestamp
from cachesvc.engine.cache import Cache, Levels
from cachesvc.metrics import GaugeReading, Metrics
from cachesvc.tiers.catalog_facts import Total
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.memory import MemoryTier
from cachesvc_proto.v1 import cache_pb2 as pb

# Workers report hit counts; a sum above uint64 would make protobuf raise and break Stats and
# /health.
_MAX_UINT64 = (1 << 64) - 1


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
        count = self._metrics.value
        return pb.StatsResponse(
            started_at=self._started,
            version=self._version,
            requests=pb.RequestStats(
                memory_hits=count("requests", tier=Tier.MEMORY),
                disk_hits=count("requests", tier=Tier.DISK),
                origin_fills=count("requests", tier=Tier.ORIGIN),
                not_found=count("request_failures", outcome="not_found"),
                failed=count("request_failures", outcome="failed"),
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

    async def gauges(self) -> list[GaugeReading]:
        """Return the gauges for a scrape; see docs/metrics.md."""
        # Asking a file system may block.
        free_bytes = await asyncio.to_thread(self._memory.filesystem_free_bytes)
        return list(self._gauges(free_bytes))

    def _gauges(self, memory_free_bytes: int) -> Iterable[GaugeReading]:
        yield from self._namespace_gauges()
        yield from self._tier_gauges(memory_free_bytes)
        levels = self._cache.levels()
        yield from self._queue_gauges(levels)
        yield _single(
            "origin_circuit_open",
            "1 while the circuit is open, so that fills do not ask the origin.",
            levels.is_origin_left_alone,
        )
        yield _single("absences", "Absences remembered.", levels.absences)
        yield _single(
            "loop_lag_seconds",
            "The event loop's worst lateness of the last 30 to 60 s.",
            levels.loop_lag_s,
        )
        yield _single("tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))

    def _namespace_gauges(self) -> Iterable[GaugeReading]:
        names = self._cache.kinds.namespaces
        memory, disk = self._memory.index, self._disk.totals
        totals = {name: disk.get(name, Total()) for name in names}
        readings: tuple[tuple[str, str, dict[str, float]], ...] = (
            ("memory_entries", "Entries in L1.", {n: memory.usage[n].entries for n in names}),
            ("memory_bytes", "Bytes in L1.", {n: memory.usage[n].size_bytes for n in names}),
            (
                "memory_max_entries",
                "The namespace's limit in L1.",
                {n: memory.limits[n].max_entries for n in names},
            ),
            ("disk_entries", "Entries in L2.", {n: totals[n].entries for n in names}),
            ("disk_bytes", "Bytes in L2.", {n: totals[n].stored_bytes for n in names}),
        )
        for name, text, values in readings:
            yield (name, text, "namespace", values)

    def _tier_gauges(self, memory_free_bytes: int) -> Iterable[GaugeReading]:
        memory, disk = self._memory, self._disk
        yield (
            "tier_max_bytes",
            "The tier's limit.",
            "tier",
            {Tier.MEMORY: memory.index.max_bytes, Tier.DISK: disk.room.max_bytes},
        )
        yield _single(
            "memory_room_bytes",
            "Bytes that L1 may hold now: its limit, or less if other files fill tmpfs.",
            memory.room_bytes(memory_free_bytes),
        )
        yield (
            "filesystem_free_bytes",
            "Free bytes of the tier's filesystem.",
            "tier",
            {Tier.MEMORY: memory_free_bytes, Tier.DISK: disk.room.free_bytes},
        )
        yield _single(
            "disk_limit_in_force_bytes",
            "Bytes that L2 may hold now: its limit, or less if other files take the room.",
            disk.room.limit_in_force_bytes,
        )
        yield _single(
            "disk_high_watermark_bytes",
            "Bytes in L2 above which entries are evicted.",
            disk.room.high_watermark_bytes,
        )
        yield _single(
            "disk_floor_bytes",
            "Free bytes that L2 leaves to its filesystem.",
            disk.room.floor_bytes,
        )
        yield _single(
            "held_bytes", "Bytes evicted from L1 that readers still hold.", memory.held_bytes
        )
        yield _single(
            "spare_bytes",
            "Bytes of files made beforehand for the next misses.",
            memory.spares.ready_bytes,
        )

    def _queue_gauges(self, levels: Levels) -> Iterable[GaugeReading]:
        limits = self._cache.limits
        yield (
            "queue_depth",
            "Work that waits or is under way.",
            "queue",
            {
                "catalog": self._disk.queue_depth,
                "flights": levels.flights,
                "puts": levels.puts,
                "tombstones": levels.tombstones,
                "unfinished_invalidations": levels.unfinished_invalidations,
            },
        )
        yield (
            "queue_max_depth",
            "The queue's limit.",
            "queue",
            {"flights": limits.max_flights, "puts": limits.max_concurrent_puts},
        )
        yield _single(
            "disk_pending_bytes",
            "Bytes that wait to be written to L2.",
            levels.pending_bytes,
        )
        yield _single(
            "disk_pending_max_bytes",
            "Bytes that may wait to be written to L2.",
            limits.max_pending_bytes,
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


def _single(name: str, text: str, value: float) -> GaugeReading:
    return (name, text, "", {"": float(value)})
