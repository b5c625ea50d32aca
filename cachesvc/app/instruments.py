"""What do the daemon's parts report to, and what does an entry that leaves a tier count as?"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachesvc import __version__
from cachesvc.core.clock import NS_PER_S, Clock
from cachesvc.core.entry import EntryMeta, Row
from cachesvc.core.events import Eviction, RecentEvents
from cachesvc.core.leaving import Leaving
from cachesvc.core.problems import Problems
from cachesvc.core.tier import Tier
from cachesvc.metrics import Metrics
from cachesvc.tiers.memory import MemoryEntry

_EVICTIONS = (
    Leaving.ENTRIES_LIMIT,
    Leaving.BYTES_LIMIT,
    Leaving.TMPFS_FULL,
    Leaving.DESCRIPTORS,
    Leaving.DISK_SPACE,
)


@dataclass(frozen=True, slots=True)
class Instruments:
    """The clock, the counters, the events of the status page, and the problems of /readyz."""

    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=lambda: Metrics(__version__))
    events: RecentEvents = field(default_factory=RecentEvents)
    problems: Problems = field(default_factory=Problems)

    def left_memory(self, entry: MemoryEntry, cause: Leaving) -> None:
        """Count an entry that left L1. An eviction is also an event."""
        self.metrics.memory_removals.inc(cause.value)
        self._note_eviction(Tier.MEMORY, entry.meta, cause)

    def left_disk(self, row: Row, cause: Leaving) -> None:
        """Count an entry that left L2. An eviction is also an event."""
        self.metrics.disk_removals.inc(cause.value)
        self._note_eviction(Tier.DISK, row.meta, cause)

    def _note_eviction(self, tier: Tier, meta: EntryMeta, cause: Leaving) -> None:
        if cause not in _EVICTIONS:
            return
        now = self.clock.read()
        age_s = max(0, now.steady_ns - meta.confirmed_ns) / NS_PER_S
        self.metrics.eviction_age_seconds.observe(age_s, tier)
        event = Eviction(now.wall_ns, tier, meta.key, cause, meta.size_bytes, age_s)
        self.events.evictions.append(event)
