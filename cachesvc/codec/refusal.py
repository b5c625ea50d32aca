"""How does the codec refuse what the origin holds?

Reasons are stable, messages name what was refused and never echo much of it.
"""

from __future__ import annotations

from cachesvc.core.errors import OriginDataCorrupt

PICKLE_REFUSED = "PICKLE_REFUSED"
IMAGE_REFUSED = "IMAGE_REFUSED"

# Enough for `torch._utils._rebuild_parameter_with_state`, short enough for a log line.
MAX_ECHO_CHARS = 64


def pickle_refused(message: str) -> OriginDataCorrupt:
    """Return the error for a pickle that is damaged or more than a plain tensor."""
    return OriginDataCorrupt(f"pickle refused: {message}", reason=PICKLE_REFUSED)


def image_refused(message: str) -> OriginDataCorrupt:
    """Return the error for an image that is damaged, too large or of a mode we do not keep."""
    return OriginDataCorrupt(f"image refused: {message}", reason=IMAGE_REFUSED)


def clipped(text: str) -> str:
    """Return `text` for a message: quoted, printable ASCII, at most MAX_ECHO_CHARS long."""
    quoted = ascii(text[:MAX_ECHO_CHARS])
    return quoted if len(quoted) <= MAX_ECHO_CHARS + 2 else quoted[:MAX_ECHO_CHARS] + "...'"
