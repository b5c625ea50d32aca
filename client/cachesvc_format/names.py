"""Which names are allowed, and how does a message show an unchecked name?"""

from __future__ import annotations

import re

MAX_ID_LENGTH = 128
ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
# Enough for `torch._utils._rebuild_parameter_with_state`, short enough for a log line.
MAX_ECHO_CHARS = 64

_ID = re.compile(ID_PATTERN)


def is_id(value: str) -> bool:
    """Return whether `value` may be used as an id or a namespace name."""
    return _ID.fullmatch(value) is not None


def clipped(text: str) -> str:
    """Return `text` for a message: quoted, printable ASCII, at most MAX_ECHO_CHARS long."""
    quoted = ascii(text[:MAX_ECHO_CHARS])
    return quoted if len(quoted) <= MAX_ECHO_CHARS + 2 else quoted[:MAX_ECHO_CHARS] + "...'"
