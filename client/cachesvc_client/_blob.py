"""Reads received blobs, and cuts blobs to send into pieces.

`cachesvc_format.blob` defines the format. The `safetensors` package is not needed: the thin client
depends only on grpcio and protobuf.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from cachesvc_format.blob import (
    HEADER_LENGTH,
    ITEM_BYTES,
    Buffer,
    FieldLayout,
    header_end,
    read_header,
)

_USUAL_HEADER_BYTES = 4096


def cut(pieces: Iterable[Buffer], max_bytes: int) -> Iterator[memoryview]:
    """Yield the pieces in order, none longer than `max_bytes`, without copying."""
    for piece in pieces:
        view = memoryview(piece)
        for at in range(0, len(view), max_bytes):
            yield view[at : at + max_bytes]


class Layout(Mapping[str, FieldLayout]):
    """The place of each field in a blob. Shared by all blobs with the same header.

    `alignment` is (offset, alignment) of the widest field. `plan` belongs to `_torch`.
    """

    __slots__ = ("_fields", "alignment", "plan")

    def __init__(self, fields: Mapping[str, FieldLayout]) -> None:
        self._fields = fields
        widest = max(fields.values(), key=lambda f: ITEM_BYTES[f.dtype], default=None)
        self.alignment = (widest.begin, ITEM_BYTES[widest.dtype]) if widest else (0, 1)
        self.plan: Any = None

    def __getitem__(self, name: str) -> FieldLayout:
        try:
            return self._fields[name]
        except (KeyError, TypeError):  # TypeError: a name that cannot be hashed
            raise KeyError(f"no field {name!r}; the fields are {', '.join(self)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        fields = (f"{field.name} {field.dtype} {field.shape}" for field in self.values())
        return f"<Layout {', '.join(fields)}>"


def read_layout(blob: memoryview) -> Layout:
    """Return the place of each field. Raises BlobError if the header does not cover every byte."""
    end = header_end(blob, len(blob))
    return _layout_of(bytes(blob[HEADER_LENGTH.size : end]), len(blob))


def read_layout_of_file(fd: int, size_bytes: int) -> Layout:
    """As `read_layout`, for a file: `pread` costs less than a page fault in a new mapping."""
    head = os.pread(fd, _USUAL_HEADER_BYTES, 0)
    end = header_end(memoryview(head), size_bytes)
    if end > len(head):
        head = os.pread(fd, end, 0)
    return _layout_of(head[HEADER_LENGTH.size : end], size_bytes)


@lru_cache(maxsize=64)
def _layout_of(text: bytes, size_bytes: int) -> Layout:
    """Check and read a header: 60 us, once for all blobs of one kind and size."""
    return Layout(read_header(text, size_bytes).fields)
