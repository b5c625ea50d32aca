"""Entries for tests: tiny, in the real formats, and every member holds its version."""

from __future__ import annotations

import numpy as np
import safetensors.numpy

from cachesvc.codec.blob import build_blob
from cachesvc.codec.images import encode_png
from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc.core.checksum import checksum
from cachesvc.core.entry import EntryMeta
from cachesvc.core.keys import EntryKey
from cachesvc.core.kinds import Encoding, Field, Kind
from cachesvc.core.origin import OriginStamp
from cachesvc_format.blob import Tensor
from tests.support.clocks import START_NS

IMAGE_SHAPE = (2, 3, 3)


def tensor_of(field: Field, version: int) -> Tensor:
    """Return the decoded tensor of `field`: `version` in every element."""
    if field.encoding is Encoding.PNG:
        return Tensor("U8", IMAGE_SHAPE, bytes([version]) * 18, "RGB")
    return Tensor("F16", (1, 4), np.full(4, version, "<f2").tobytes())


def member_of(field: Field, version: int) -> bytes:
    """Return the origin's object for `field`."""
    tensor = tensor_of(field, version)
    return encode_png(tensor) if field.encoding is Encoding.PNG else encode_pickle(tensor)


def blob_of(kind: Kind, version: int) -> bytes:
    """Return the whole entry, as a Put sends it."""
    return build_blob({field.name: tensor_of(field, version) for field in kind.fields})


def version_of(blob: memoryview | bytes) -> int:
    """Return the version of an entry, after checking that every element has it."""
    tensors = safetensors.numpy.load(bytes(blob)).values()
    versions = {int(value) for tensor in tensors for value in np.unique(tensor)}
    assert len(versions) == 1, f"members of several versions: {versions}"
    return versions.pop()


def meta_of(
    key: EntryKey,
    data: bytes,
    *,
    generation: int = START_NS,
    owner: str = "owner",
    confirmed_ns: int = START_NS,
    base_ttl_s: float = 24 * 3600.0,
    explicit_ttl_s: float | None = None,
) -> EntryMeta:
    """Return the metadata of an entry whose blob is `data`."""
    return EntryMeta(
        key=key,
        owner=owner,
        generation=generation,
        size_bytes=len(data),
        checksum=checksum(data),
        stamps=(OriginStamp(f"users/{owner}/{key.id}", "etag", confirmed_ns / 1e9),),
        begun_ns=confirmed_ns,
        origin_ns=confirmed_ns,
        confirmed_ns=confirmed_ns,
        base_ttl_s=base_ttl_s,
        explicit_ttl_s=explicit_ttl_s,
        kind_version="",
    )
