"""A kind of one small tensor, of which many entries can be made, and its objects."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc_format.blob import Tensor

NAMESPACE = "small"
OWNER = "owner"


def settings(l1_entries: int) -> dict[str, str]:
    """Return the settings that add the kind, with an L1 for that many entries."""
    kind = {
        "max_entries": l1_entries,
        "subject": "clothing",
        "namespaces": [{"name": NAMESPACE}],
        "fields": [
            {"name": "value", "encoding": "pickle", "template": "small/{owner}/{id}.pkl"},
        ],
    }
    return {"KINDS": json.dumps({NAMESPACE: kind})}


def write_objects(origin: Path, ids: list[str], size_bytes: int) -> None:
    """Write an object of random bytes for each id."""
    folder = origin / "small" / OWNER
    folder.mkdir(parents=True, exist_ok=True)
    for name in ids:
        tensor = Tensor("U8", (size_bytes,), os.urandom(size_bytes))
        (folder / f"{name}.pkl").write_bytes(encode_pickle(tensor))
