"""How does the codec refuse what the origin holds?

Reasons are stable, messages name what was refused and never echo much of it.
"""

from __future__ import annotations

from cachesvc.core.errors import OriginDataCorrupt

PICKLE_REFUSED = "PICKLE_REFUSED"
IMAGE_REFUSED = "IMAGE_REFUSED"


def pickle_refused(message: str) -> OriginDataCorrupt:
    """Return the error for a pickle that is damaged or more than a plain tensor."""
    return OriginDataCorrupt(f"pickle refused: {message}", reason=PICKLE_REFUSED)


def image_refused(message: str) -> OriginDataCorrupt:
    """Return the error for an image that is damaged, too large or of a mode we do not keep."""
    return OriginDataCorrupt(f"image refused: {message}", reason=IMAGE_REFUSED)
