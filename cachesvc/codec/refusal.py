"""How does the codec refuse an object of the origin?

Reasons are stable. Messages name what was refused and echo little of the object.
"""

from __future__ import annotations

from cachesvc.core.errors import OriginDataCorrupt

PICKLE_REFUSED = "PICKLE_REFUSED"
IMAGE_REFUSED = "IMAGE_REFUSED"


def pickle_refused(message: str) -> OriginDataCorrupt:
    """Return the error for a pickle that is damaged or not a plain tensor."""
    return OriginDataCorrupt(f"pickle refused: {message}", reason=PICKLE_REFUSED)


def image_refused(message: str) -> OriginDataCorrupt:
    """Return the error for an image that is damaged, too large or of a mode we do not keep."""
    return OriginDataCorrupt(f"image refused: {message}", reason=IMAGE_REFUSED)
