"""Which commands does the README have its reader type? Imports the standard library only."""

from __future__ import annotations

import re
from pathlib import Path


def shell_blocks(readme: Path, title: str) -> list[str]:
    """Return the shell blocks below a heading."""
    body = re.findall(rf"^#+ {title}\n(.*?)(?=^##+ )", readme.read_text(), re.MULTILINE | re.DOTALL)
    assert len(body) == 1, f"{readme} has {len(body)} sections named {title}"
    return re.findall(r"^```sh\n(.*?)^```", body[0], re.MULTILINE | re.DOTALL)
