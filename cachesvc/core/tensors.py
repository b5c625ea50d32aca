"""Which types hold bytes, and how much memory does decoding an object take?"""

from __future__ import annotations

from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What an object's header says before decoding.

    `size_bytes` is the least size of its value; `needed_bytes` is the most memory that decoding
    takes, the value included.
    """

    size_bytes: int
    needed_bytes: int


class PlanTooSmall(Exception):
    """Decoding takes more memory than planned, which only the object's inside says.

    Stays in the engine: take the memory of `plan`, and decode again.
    """

    def __init__(self, plan: DecodePlan) -> None:
        super().__init__(f"decoding takes {plan.needed_bytes} bytes")
        self.plan = plan
