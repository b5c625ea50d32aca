"""Why does an entry leave a tier?"""

from __future__ import annotations

from enum import Enum


class Leaving(Enum):
    """Why an entry left a tier. The values are metric labels and log fields."""

    ENTRIES_LIMIT = "entries_limit"
    BYTES_LIMIT = "bytes_limit"
    # L1 is within its limits, but tmpfs has no room or inode left, or the process no descriptor.
    TMPFS_FULL = "tmpfs_full"
    DESCRIPTORS = "descriptors"
    DISK_SPACE = "disk_space"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"
    REPLACED = "replaced"
