"""The checksum of a blob: xxh3-64, kept signed because SQLite's integers are signed.

safetensors has no checksum: data with a flipped bit loads without an error.
"""

from __future__ import annotations

import xxhash

from cachesvc.core.tensors import Buffer


class Checksum:
    """Computes the checksum over chunks."""

    __slots__ = ("_digest",)

    def __init__(self) -> None:
        self._digest = xxhash.xxh3_64()

    def update(self, chunk: Buffer) -> None:
        self._digest.update(chunk)

    def value(self) -> int:
        return _signed(self._digest.intdigest())


def checksum(*parts: Buffer) -> int:
    """Return the checksum of a whole blob, given in one part or more (0.4 ms for 10 MB)."""
    digest = Checksum()
    for part in parts:
        digest.update(part)
    return digest.value()


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
