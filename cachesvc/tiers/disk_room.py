"""How full is L2, and may a new file be written?

Counts bytes; asks no disk, deletes nothing, waits for nothing. All sizes are bytes on disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from cachesvc.core.watermarks import Watermarks


class DiskRoom:
    """The bytes of L2, by what holds them. All methods belong to the event loop.

    used         files with a row: the catalog's totals
    reserved     files being written, or whose row is not committed yet
    leaving      files that have lost their row and are not unlinked yet
    quarantined  damaged files that were set aside

    `free_bytes` is what the filesystem had free when the tier last asked: asking may block.
    """

    def __init__(
        self, watermarks: Watermarks, used_bytes: Callable[[], int], free_bytes: int
    ) -> None:
        self._watermarks = watermarks
        self._used_bytes = used_bytes
        self.free_bytes = free_bytes
        self.quarantined_bytes = 0
        self.reserved_bytes = 0
        self._leaving_bytes = 0

    @property
    def used_bytes(self) -> int:
        return self._used_bytes()

    @property
    def occupied_bytes(self) -> int:
        """Bytes under the root: entries, files that are not unlinked yet, and the quarantine."""
        return self.used_bytes + self._leaving_bytes + self.quarantined_bytes

    @property
    def max_bytes(self) -> int:
        return self._watermarks.capacity_bytes

    @property
    def high_watermark_bytes(self) -> int:
        return self._watermarks.high_bytes

    @property
    def floor_bytes(self) -> int:
        return self._watermarks.floor_bytes

    @property
    def limit_in_force_bytes(self) -> int:
        """How much L2 may have now: its limit, or less if others fill the filesystem."""
        room = self.occupied_bytes + max(0, self.free_bytes - self.floor_bytes)
        return min(self.max_bytes, room)

    def reserve(self, size_bytes: int) -> bool:
        """Reserve `size_bytes` if the watermarks admit them; return whether they do.

        One function looks and adds; otherwise two writers could take the same room.
        """
        is_admitted = self._watermarks.admits(
            size_bytes, self.occupied_bytes, self.reserved_bytes, self.free_bytes
        )
        if is_admitted:
            self.reserved_bytes += size_bytes
        return is_admitted

    def release(self, size_bytes: int) -> None:
        """Give back what `reserve` took: the file has its row, or will not be written."""
        self.reserved_bytes -= size_bytes

    @contextlib.contextmanager
    def leaving(self, size_bytes: int) -> Iterator[None]:
        """Count `size_bytes` as occupied until the block ends: their files are being unlinked."""
        self._leaving_bytes += size_bytes
        try:
            yield
        finally:
            self._leaving_bytes -= size_bytes

    def eviction_can_admit(self, size_bytes: int) -> bool:
        """Return whether L2 would admit `size_bytes` once it has evicted enough."""
        return size_bytes <= self._watermarks.low_bytes

    def would_admit(self, size_bytes: int) -> bool:
        """Return whether the watermarks admit `size_bytes`, if need be without other entries."""
        used = self.used_bytes
        return self.eviction_can_admit(size_bytes) and self._watermarks.admits(
            size_bytes, self.occupied_bytes - used, self.reserved_bytes, self.free_bytes + used
        )

    def bytes_to_evict(self, wanted_bytes: int) -> int:
        """Return how much the watermarks ask to evict, with room for `wanted_bytes` more."""
        return self._watermarks.bytes_to_free(
            self.used_bytes,
            self.reserved_bytes + wanted_bytes + self.quarantined_bytes,
            # Leaving files count as free: nothing more has to be evicted in their place.
            self.free_bytes + self._leaving_bytes,
        )
