"""Reads the garments' owners from the operator's file: V2 kept no owners."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from cachesvc_format.names import is_id


def read_owners(path: Path) -> dict[str, str]:
    """Return owner_id by clothing_id, from a JSON object or CSV lines `clothing_id,owner_id`.

    Raises ValueError, OSError.
    """
    text = path.read_text(encoding="utf-8")
    found = json.loads(text) if text.lstrip().startswith("{") else _csv(text)
    for clothing_id, owner_id in found.items():
        if not (isinstance(owner_id, str) and is_id(clothing_id) and is_id(owner_id)):
            raise ValueError("each clothing_id and owner_id must be a valid id")
    return dict(found)


def _csv(text: str) -> dict[str, str]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if any(len(row) != 2 for row in rows):
        raise ValueError("each line must be clothing_id,owner_id")
    return {clothing_id.strip(): owner_id.strip() for clothing_id, owner_id in rows}
