"""Why does an entry leave a tier?"""

from __future__ import annotations

from enum import Enum


class Leaving(Enum):
    """Why an entry left a tier. The values are metric labels and log fields."""

    ENTRIES_LIMIT = "entries_limit"
    BYTES_LIMIT = "bytes_limit"
    # Somebody else has what L1's limits allow: room of tmpfs, its inodes, or descriptors.
    TMPFS_FULL = "tmpfs_full"
    DESCRIPTORS = "descriptors"
    DISK_SPACE = "disk_space"
    EXPIRED = "expired"
    INVALIDATED = "invalidated"
    REPLACED = "replaced"
