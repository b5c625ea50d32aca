"""The subjects of the soak's calls: more people and clothes than L1 holds. Imports no torch."""

from __future__ import annotations

# The defaults, V2's limits, are 10 people in L1 and 100 garments.
PEOPLE, CLOTHES = 30, 150
OWNER = "owner"


def user_id(number: int) -> str:
    return f"user{number}"


def clothing_id(number: int) -> str:
    return f"clothing{number}"
