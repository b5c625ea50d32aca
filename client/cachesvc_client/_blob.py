"""The blob: one entry as safetensors bytes, written and strictly read.

Layout (https://huggingface.co/docs/safetensors): the header's length as u64 LE,
a JSON header, then the data without holes. Ours adds: the data starts at a
multiple of 64, wider dtypes come first so that every field is aligned,
`__metadata__` has `cachesvc.format` = "1" and `{field}.mode` for images.
The `safetensors` package is not needed: the thin client depends on grpcio and
protobuf only.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

FORMAT = "1"
MAX_HEADER_BYTES = 64 * 1024
DATA_ALIGNMENT_BYTES = 64

ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "I32": 4,
    "I64": 8,
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
}
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

_USUAL_HEADER_BYTES = 4096
_LENGTH = struct.Struct("<Q")


class BlobError(ValueError):
    """The bytes are not a blob that this version can read."""


@dataclass(frozen=True)
class FieldLayout:
    """One field: dtype (safetensors' name), shape, and where its bytes lie in the blob.

    `mode` is the PIL mode of an image, U8 of shape (H, W) or (H, W, C), else None.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    mode: str | None = None

    @cached_property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class FieldData:
    """One field to store: C order, little-endian; `data` is a contiguous buffer of bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview
    mode: str | None = None


def encode(fields: Mapping[str, FieldData]) -> list[bytes | memoryview]:
    """Return the blob in pieces, in order: the header, then each field's own buffer.

    Raises BlobError if the names do not fit a header of 64 KiB.
    """
    metadata = {"cachesvc.format": FORMAT}
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    # Wide dtypes first: each then starts at a multiple of its own width.
    ordered = sorted(fields.items(), key=lambda item: (-ITEM_BYTES[item[1].dtype], item[0]))
    for name, field in ordered:
        end = at + len(field.data)
        assert len(field.data) == math.prod(field.shape) * ITEM_BYTES[field.dtype]
        header[name] = {
            "dtype": field.dtype,
            "shape": list(field.shape),
            "data_offsets": [at, end],
        }
        if field.mode is not None:
            metadata[f"{name}.mode"] = field.mode
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_LENGTH.size + len(text)) % DATA_ALIGNMENT_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise BlobError("the header is larger than 64 KiB")
    return [_LENGTH.pack(len(text)) + text, *(field.data for _, field in ordered)]


def cut(pieces: Iterable[bytes | memoryview], max_bytes: int) -> Iterator[memoryview]:
    """Yield the pieces in order, none longer than `max_bytes`, without copying."""
    for piece in pieces:
        view = memoryview(piece)
        for at in range(0, len(view), max_bytes):
            yield view[at : at + max_bytes]


class Layout(Mapping[str, FieldLayout]):
    """Where each field of a blob lies. Shared by all blobs with the same header.

    `alignment` is (offset, alignment) of the widest field. `plan` belongs to `_torch`.
    """

    __slots__ = ("_fields", "alignment", "plan")

    def __init__(self, fields: dict[str, FieldLayout]) -> None:
        self._fields = fields
        widest = max(fields.values(), key=lambda f: ITEM_BYTES[f.dtype], default=None)
        self.alignment = (widest.begin, ITEM_BYTES[widest.dtype]) if widest else (0, 1)
        self.plan: Any = None

    def __getitem__(self, name: str) -> FieldLayout:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)


def read_layout(blob: memoryview) -> Layout:
    """Return where each field lies. Raises BlobError unless every byte is accounted for."""
    data_start = _data_start(blob, len(blob))
    return _layout_of(bytes(blob[_LENGTH.size : data_start]), len(blob))


def read_layout_of_file(fd: int, size_bytes: int) -> Layout:
    """As `read_layout`, of a file: reading it costs less than a fault in a new mapping."""
    head = os.pread(fd, _USUAL_HEADER_BYTES, 0)
    data_start = _data_start(memoryview(head), size_bytes)
    if data_start > len(head):
        head = os.pread(fd, data_start, 0)
    return _layout_of(head[_LENGTH.size : data_start], size_bytes)


def _data_start(head: memoryview, size_bytes: int) -> int:
    if len(head) < _LENGTH.size:
        raise BlobError("too short for a header")
    data_start: int = _LENGTH.size + _LENGTH.unpack_from(head)[0]
    # Before any parser sees it: a huge JSON header costs seconds and gigabytes.
    if data_start > min(size_bytes, _LENGTH.size + MAX_HEADER_BYTES):
        raise BlobError("the header's length is out of range")
    return data_start


@lru_cache(maxsize=64)
def _layout_of(text: bytes, size_bytes: int) -> Layout:
    """Check and read a header. Those of one kind and size are alike: 60 us, once."""
    data_start = _LENGTH.size + len(text)
    header = _parse(text)
    metadata = _metadata(header.pop("__metadata__", {}))
    fields = {name: _field(name, value, metadata, data_start) for name, value in header.items()}
    _check_cover(fields.values(), data_start, size_bytes)
    return Layout(fields)


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as exc:
        raise BlobError("the header is not JSON") from exc
    if not isinstance(header, dict):
        raise BlobError("the header is not an object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise BlobError("the header names a field twice")
    return dict(pairs)


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise BlobError("the metadata is not text")
    if value.get("cachesvc.format", FORMAT) != FORMAT:
        raise BlobError("the blob has a newer format than this client reads")
    return value


def _field(name: str, value: Any, metadata: dict[str, str], data_start: int) -> FieldLayout:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise BlobError(f"field {name!r} is not described")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise BlobError(f"field {name!r} has an unknown dtype")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise BlobError(f"field {name!r} has a bad shape or offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * ITEM_BYTES[dtype]:
        raise BlobError(f"field {name!r} has a size that is not its shape's")
    mode = metadata.get(f"{name}.mode")
    if mode is not None and not _fits_mode(mode, dtype, shape):
        raise BlobError(f"field {name!r} has a shape that is not its image mode's")
    return FieldLayout(name, dtype, tuple(shape), data_start + begin, data_start + end, mode)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _fits_mode(mode: str, dtype: str, shape: list[int]) -> bool:
    if dtype != "U8" or len(shape) not in (2, 3):
        return False
    # A mode we do not know can still be read as a tensor; `image()` refuses it.
    return mode not in CHANNELS or CHANNELS[mode] == (shape[2] if len(shape) == 3 else 1)


def _check_cover(fields: Iterable[FieldLayout], start: int, end: int) -> None:
    at = start
    for field in sorted(fields, key=lambda f: (f.begin, f.end)):
        if field.begin != at:
            raise BlobError("the fields overlap or leave a hole")
        at = field.end
    if at != end:
        raise BlobError("the data is shorter or longer than the header says")
