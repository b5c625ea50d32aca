"""What do bytes lie in, and how much memory does a decoded object take?"""

from __future__ import annotations

from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What an object's header says before anything is decoded.

    `size_bytes` is the least that its value has, `needed_bytes` the most memory that decoding
    takes, the value included.
    """

    size_bytes: int
    needed_bytes: int
