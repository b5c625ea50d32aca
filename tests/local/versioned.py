"""Which version does an entry hold? Every word of its content says so.

The entries are texts of 64 KB whose five fields are filled with one number, so that the content
alone shows a stale answer and a mixed one.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc_client import CacheClient, EntryInfo
from cachesvc_client.entry import EntryFields
from cachesvc_client.requests import PutOptions
from cachesvc_format.blob import Tensor

FIELDS = (
    "negative_pooled_prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "prompt_embeds",
    "prompt_embeds_c",
)
DEFAULT_SIZE_BYTES = 64 * 1024
_WORD = np.dtype("<i8")


class MixedEntry(AssertionError):
    """An entry held words of two versions."""


def put_version(
    client: CacheClient,
    clothing_id: str,
    version: int,
    *,
    size_bytes: int = DEFAULT_SIZE_BYTES,
    ttl: timedelta | None = None,
    as_of: datetime | None = None,
) -> EntryInfo:
    """Put the text of `clothing_id` with `version` in every word."""
    words = size_bytes // len(FIELDS) // _WORD.itemsize
    fields = {name: np.full(words, version, dtype=_WORD) for name in FIELDS}
    return client.put("text", clothing_id, fields, options=PutOptions(as_of=as_of, ttl=ttl))


def upload_version(
    origin_dir: Path, owner_id: str, clothing_id: str, version: int, *, size_bytes: int
) -> None:
    """Write the text into the origin's folder; its objects change one after the other."""
    words = size_bytes // len(FIELDS) // _WORD.itemsize
    tensor = Tensor("I64", (words,), np.full(words, version, dtype=_WORD).tobytes())
    data = encode_pickle(tensor)
    folder = origin_dir / "users" / owner_id / "vton-cache" / "text"
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIELDS:
        unfinished = folder / "unfinished"
        unfinished.write_bytes(data)
        unfinished.replace(folder / f"{clothing_id}_{name}.pkl")


def words_of(entry: EntryFields) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return all words of the entry's fields, without a copy."""
    begin = min(field.begin for field in entry.layout.values())
    return np.frombuffer(entry.blob, dtype=_WORD, offset=begin)


def oldest_version_of(entry: EntryFields) -> int:
    """Return the oldest version in any word: a fill during an upload may mix two versions."""
    return int(words_of(entry).min())


def version_of(entry: EntryFields) -> int:
    """Return the version, after checking every word. Raises MixedEntry."""
    words = words_of(entry)
    version = int(words[0])
    if not (words == version).all():
        raise MixedEntry(f"{version} and {sorted(set(words.tolist()) - {version})[:5]}")
    return version
