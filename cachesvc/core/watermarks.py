"""Decides how many bytes L2 must free, and whether a new entry may be admitted.

Pure: no clock, no I/O. All sizes are bytes on disk.
Why two marks: with one, every fill at a full disk would evict an entry, with an unlink
and a catalog write; between two marks there is room for a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachesvc.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Eviction starts above `high_bytes` and stops at or below `low_bytes`.

    `floor_bytes` of the filesystem stay free, whichever program fills it.

    Raises:
        ConfigError: unless 0 < low <= high <= capacity and floor >= 0.
    """

    low_bytes: int
    high_bytes: int
    capacity_bytes: int
    floor_bytes: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.low_bytes <= self.high_bytes <= self.capacity_bytes:
            raise ConfigError("l2 watermarks must be 0 < low <= high <= 1")
        if self.floor_bytes < 0:
            raise ConfigError("l2.free_floor_bytes must not be negative")

    def bytes_to_free(self, used_bytes: int, reserved_bytes: int, free_bytes: int) -> int:
        """Return how much to evict now; 0 while at or under the high mark and above the floor."""
        assert used_bytes >= 0
        assert reserved_bytes >= 0
        # A fill owns its room before its first byte lands; otherwise two fills could
        # both pass the check and overshoot the disk together.
        committed_bytes = used_bytes + reserved_bytes
        over_bytes = committed_bytes - self.low_bytes if committed_bytes > self.high_bytes else 0
        # If other programs fill the disk, the cache shrinks. Same arithmetic as `admits`;
        # otherwise we would evict too little for the entry that needs the room.
        short_bytes = max(0, self.floor_bytes - (free_bytes - reserved_bytes))
        return min(used_bytes, max(over_bytes, short_bytes))

    def admits(
        self, size_bytes: int, used_bytes: int, reserved_bytes: int, free_bytes: int
    ) -> bool:
        """Return whether `size_bytes` more may be written."""
        fits = used_bytes + reserved_bytes + size_bytes <= self.capacity_bytes
        return fits and free_bytes - reserved_bytes - size_bytes >= self.floor_bytes
