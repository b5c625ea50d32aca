"""How is a tensor written as the zip file of `torch.save`, so that every `torch.load` reads it?

The records are those that torch 1.6 and later need, uncompressed, with checksums, and without
anything that differs between equal tensors. The elements begin at a multiple of 64, where
`torch.load(mmap=True)` wants them. `torch_zip.py` reads the same form.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from cachesvc.codec.pickle_writer import PROTO_2, STOP, STORAGE_KEY, check_size, rebuilt, storage_id
from cachesvc.codec.torch_zip import END, END_SIGNATURE, ENTRY, ENTRY_SIGNATURE, LOCAL, SIGNATURE
from cachesvc.core.tensors import Buffer
from cachesvc_format.blob import Tensor

_FOLDER = "archive"
_FORMAT_VERSION = b"3\n"
_ALIGNMENT_BYTES = 64
# An extra field of torch's, whose content is padding.
_EXTRA = struct.Struct("<2sH")
_EXTRA_NAME, _PADDING = b"FB", b"Z"
_STORED_SINCE = 20  # the version of zip that knows folders
_FIRST_DAY = (1 << 5) | 1  # 1980-01-01, the first that zip knows


class _Placed(NamedTuple):
    name: bytes
    at: int
    size_bytes: int
    checksum: int


def zip_file_parts(tensor: Tensor) -> list[Buffer]:
    """Return the file in parts, the same bytes for the same tensor.

    Raises:
        InvalidRequest: reason TENSOR_TOO_LARGE, if `read_zip` would refuse it.
    """
    check_size(tensor)
    stream = PROTO_2 + rebuilt(tensor, storage_id(tensor, is_legacy=False)) + STOP
    records: tuple[tuple[str, Buffer], ...] = (
        ("data.pkl", stream),
        ("byteorder", b"little"),
        (f"data/{STORAGE_KEY}", tensor.data),
        ("version", _FORMAT_VERSION),
    )
    parts: list[Buffer] = []
    placed: list[_Placed] = []
    at = 0
    for name, data in records:
        record = _Placed(
            f"{_FOLDER}/{name}".encode(), at, memoryview(data).nbytes, zlib.crc32(data)
        )
        head = _local_header(record)
        parts += (head, data)
        placed.append(record)
        at += len(head) + record.size_bytes
    directory = b"".join(map(_entry, placed))
    count = len(placed)
    end = END.pack(END_SIGNATURE, 0, 0, count, count, len(directory), at, 0)
    return [*parts, directory, end]


def _local_header(record: _Placed) -> bytes:
    """Return the header before the data, padded so that the data is aligned."""
    unpadded_bytes = record.at + LOCAL.size + len(record.name) + _EXTRA.size
    padding = _PADDING * (-unpadded_bytes % _ALIGNMENT_BYTES)
    extra = _EXTRA.pack(_EXTRA_NAME, len(padding)) + padding
    sizes = (record.checksum, record.size_bytes, record.size_bytes, len(record.name), len(extra))
    return LOCAL.pack(SIGNATURE, _STORED_SINCE, 0, 0, 0, _FIRST_DAY, *sizes) + record.name + extra


def _entry(record: _Placed) -> bytes:
    sizes = (record.checksum, record.size_bytes, record.size_bytes, len(record.name))
    versions = (_STORED_SINCE, _STORED_SINCE)
    rest = (0, 0, 0, 0, 0, record.at)
    return ENTRY.pack(ENTRY_SIGNATURE, *versions, 0, 0, 0, _FIRST_DAY, *sizes, *rest) + record.name
