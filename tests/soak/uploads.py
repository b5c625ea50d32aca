"""The objects of the soak's origin, small ones, for every subject."""

from __future__ import annotations

from pathlib import Path

from tests.soak.subjects import CLOTHES, OWNER, PEOPLE, clothing_id, user_id
from tests.support import sample_objects
from tests.support.sample_objects import Sizes

# Small, because the soak counts calls and not bytes.
SIZES = Sizes((24, 32), (12, 16), (1, 3, 16, 12), (1, 3, 16, 12), (1, 8, 16), (1, 16))


def garment_blob() -> bytes:
    """Return an entry of a garment, for Puts and for the echo server."""
    return sample_objects.garment("any", OWNER, sizes=SIZES).blob()


def upload(origin: Path) -> None:
    """Write every subject's objects."""
    for number in range(PEOPLE):
        sample_objects.put_in_folder(
            origin, sample_objects.person(user_id(number), sizes=SIZES, seed=number + 1)
        )
    for number in range(CLOTHES):
        name = clothing_id(number)
        sample_objects.put_in_folder(
            origin,
            sample_objects.garment(name, OWNER, sizes=SIZES, seed=number + 1),
            sample_objects.text(name, OWNER, sizes=SIZES, seed=number + 1),
        )
