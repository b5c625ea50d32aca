"""Which commit was this program built from?"""

from __future__ import annotations

import importlib


def revision() -> str | None:
    """Return the commit that the build wrote; None in a checkout, which has no such file.

    `-changed` at its end says that files differed from the commit.
    """
    try:
        written = importlib.import_module("cachesvc._revision")
    except ModuleNotFoundError:
        return None
    found: str = written.REVISION
    return found
