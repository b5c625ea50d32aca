"""Where does an answer come from?"""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """The values are metric labels, and keys of HTTP's answers."""

    MEMORY = "memory"
    DISK = "disk"
    ORIGIN = "origin"
