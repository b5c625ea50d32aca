"""Which files do L2's entries have, while other threads write and delete entries?"""

from __future__ import annotations

import os
from pathlib import Path


def entry_files(root: Path) -> list[Path]:
    """Return the files where entries have theirs below L2's root, as `find` would.

    A glob would raise if a directory disappears while it runs. Raises OSError for a directory that
    cannot be read.
    """
    walk = os.walk(root, onerror=_raise_unless_gone)
    files = (Path(folder, name) for folder, _, names in walk for name in names)
    return sorted(path for path in files if path.parents[2] == root)


def _raise_unless_gone(failure: OSError) -> None:
    if not isinstance(failure, FileNotFoundError):
        raise failure
