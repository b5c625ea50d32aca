"""Whom the soak asks for: more people and clothes than L1 holds. Imported by workers: no torch."""

from __future__ import annotations

# V2's limits, the defaults, are 10 people in L1 and 100 garments.
PEOPLE, CLOTHES = 30, 150
OWNER = "owner"


def user_id(number: int) -> str:
    return f"user{number}"


def clothing_id(number: int) -> str:
    return f"clothing{number}"
