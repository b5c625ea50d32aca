"""What a worker does with a person's images, without torch."""

from __future__ import annotations

from tests.local.workers import Held


def get_human(held: Held, name: str, user_id: str) -> int:
    """Get a person as a shared file, keep the entry under `name`, and return its size."""
    held.client.get_human(user_id)
    held.entries[name] = held.client.get_human(user_id)
    return held.entries[name].info.size_bytes


def read_mask(held: Held, name: str) -> int:
    """Read every pixel of the mask, and return how many bytes it has."""
    mask = held.entries[name].image("mask")
    return sum(mask.histogram())
