"""Which texts can be the path of the runtime directory or of a socket, for daemon and client?

Each refusal is a sentence without its subject, which the caller puts before it.
"""

from __future__ import annotations

import os
import re

# The kernel keeps a socket's path in 108 bytes, with a zero behind it (unix(7)).
MAX_SOCKET_PATH_BYTES = 107
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def problem_of(path: str) -> str:
    """Return why no path is written like that, or an empty text."""
    if not path.strip():
        return "it has to be a path, and not empty"
    if _UNPRINTABLE.search(path):
        return "a path has no control characters"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "a path is UTF-8"
    if path.startswith("~"):
        return "only a shell expands ~; write the whole path"
    if path.startswith("$") or "${" in path:
        return "only a shell expands variables; write the whole path"
    return ""


def problem_of_whole(path: str) -> str:
    """Return why `path` is no whole path, or an empty text.

    Relative paths would lead elsewhere for the daemon, its workers and its commands.
    """
    problem = problem_of(path)
    if not problem and not path.startswith("/"):
        return "it has to be a whole path, which begins with /"
    return problem


def problem_of_socket(path: str) -> str:
    """Return why no socket can be made at `path`, or an empty text."""
    size = len(os.fsencode(path))
    if size <= MAX_SOCKET_PATH_BYTES:
        return ""
    return (
        f"a socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes, and {path} has {size}; "
        "give a shorter one"
    )
