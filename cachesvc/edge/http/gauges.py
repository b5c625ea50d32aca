"""The gauges of a scrape, which the status page shows too; docs/metrics.md says what each is.

Their state belongs to the event loop and is read there without an await: a thread would see it
change during the read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cachesvc.core.tier import Tier
from cachesvc.engine.cache import Cache, Levels
from cachesvc.metrics import GaugeReading
from cachesvc.tiers.catalog_facts import Total
from cachesvc.tiers.disk import DiskTier
from cachesvc.tiers.memory import MemoryTier


class Gauges:
    """Reads the state of one daemon. Changes nothing. Belongs to the event loop."""

    def __init__(self, cache: Cache, memory: MemoryTier, disk: DiskTier) -> None:
        self._cache = cache
        self._memory = memory
        self._disk = disk

    async def read(self) -> list[GaugeReading]:
        """Return all gauges."""
        # Asking a file system may block.
        free_bytes = await asyncio.to_thread(self._memory.filesystem_free_bytes)
        return list(self._all(free_bytes))

    def _all(self, memory_free_bytes: int) -> Iterable[GaugeReading]:
        yield from self._of_namespaces()
        yield from self._of_tiers(memory_free_bytes)
        levels = self._cache.levels()
        yield from self._of_queues(levels)
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

    def _of_namespaces(self) -> Iterable[GaugeReading]:
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

    def _of_tiers(self, memory_free_bytes: int) -> Iterable[GaugeReading]:
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

    def _of_queues(self, levels: Levels) -> Iterable[GaugeReading]:
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


def _single(name: str, text: str, value: float) -> GaugeReading:
    return (name, text, "", {"": float(value)})
