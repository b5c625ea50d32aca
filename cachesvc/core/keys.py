"""Which names are allowed, and what identifies an entry.

Ids become directory names, object keys and file names, so this module checks
them once, before other code uses them.
"""

from __future__ import annotations

from typing import NamedTuple

from cachesvc.core.errors import InvalidRequest
from cachesvc_format.names import MAX_ID_LENGTH, is_id


class EntryKey(NamedTuple):
    """One entry: a namespace (also its L2 directory) and an id inside it."""

    namespace: str
    id: str


def checked_id(value: str, name: str) -> str:
    """Return `value` unchanged.

    Raises:
        InvalidRequest: unless `is_id(value)`. The message names the field and never repeats
            the value.
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
