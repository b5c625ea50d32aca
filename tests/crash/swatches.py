"""Which version does an entry hold? A kind whose every word says so.

The entries are small and have no images. Two namespaces share their ids, so that one invalidation
covers two entries.
"""

from __future__ import annotations

import numpy as np
import safetensors.numpy

from cachesvc.codec.blob import build_blob
from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Encoding, Field, Kind, Kinds, Namespace, Subject
from cachesvc_format.blob import Tensor

WORDS = 1024
OWNER = "mill"
SWATCH = Kind(
    name="swatch",
    namespaces=(Namespace("cotton", "cotton"), Namespace("linen", "linen")),
    fields=tuple(
        Field(name, Encoding.PICKLE, "users/{owner}/{part}/{id}_" + name + ".pkl")
        for name in ("warp", "weft")
    ),
    subject=Subject.CLOTHING,
    max_entries=4,
)
KINDS = Kinds((SWATCH,))
KEYS = tuple(
    EntryKey(namespace, entry_id)
    for namespace in KINDS.namespaces
    for entry_id in ("apron", "blouse", "cape")
)


def tensor_of(version: int) -> Tensor:
    return Tensor("I64", (WORDS,), np.full(WORDS, version, "<i8").tobytes())


def member_of(version: int) -> bytes:
    """Return the origin's object, which is the same for either field."""
    return encode_pickle(tensor_of(version))


def blob_of(version: int) -> bytes:
    """Return the whole entry, as a Put sends it."""
    return build_blob({name: tensor_of(version) for name in SWATCH.field_names})


def version_of(blob: memoryview) -> int:
    """Return the version, after checking every word."""
    words = np.concatenate(list(safetensors.numpy.load(bytes(blob)).values()))
    assert len(words) == WORDS * len(SWATCH.fields), f"{len(words)} words"
    assert (words == words[0]).all(), f"words of several versions: {np.unique(words)[:5]}"
    return int(words[0])
