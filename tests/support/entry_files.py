"""Which files do L2's entries have, while others write and remove them?"""

from __future__ import annotations

import os
from pathlib import Path


def entry_files(root: Path) -> list[Path]:
    """Return what lies where entries lie below L2's root, as `find` would.

    Not by a glob: that raises where a directory goes while it looks, os.walk does not.
    """
    files = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sorted(path for path in files if path.parents[2] == root)
