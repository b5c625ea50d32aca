"""Which names are allowed, and what identifies an entry.

Ids become directory names, object keys and file names, so they are checked
once, here, before anything else sees them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from cachesvc.core.errors import InvalidRequest

MAX_ID_LENGTH = 128
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class EntryKey(NamedTuple):
    """One entry: a namespace (also its L2 directory) and an id inside it."""

    namespace: str
    id: str


def is_id(value: str) -> bool:
    """Return whether `value` may be used as an id or a namespace name."""
    return _ID.fullmatch(value) is not None


def checked_id(value: str, name: str) -> str:
    """Return `value` unchanged.

    Raises:
        InvalidRequest: unless it matches `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`. The
            message names the field and never repeats the value.
    """
    if is_id(value):
        return value
    if not value:
        raise InvalidRequest(f"{name} is empty", reason="MISSING_FIELD")
    raise InvalidRequest(
        f"{name} must be 1 to {MAX_ID_LENGTH} characters of A-Z a-z 0-9 . _ - "
        "and start with a letter or a digit",
        reason="INVALID_ID",
    )
