"""Where does each field of an entry lie in its blob?

A blob is one safetensors file (https://huggingface.co/docs/safetensors): 8 bytes of header
length, a JSON header, then the tensors without holes. `blob_parts` writes a blob so that a
reader may map it:

- the data starts at a multiple of 64 bytes (the header is padded with spaces);
- tensors whose size is a multiple of 16 come first, then those of 8, 4, 2, 1, each group in
  the order of its names: no element straddles its alignment;
- `__metadata__` has `cachesvc.format` and, for each image, `{field}.mode` (PIL's).

safetensors' own writer aligns the data to 8 bytes only, and its parser takes headers of
100 MB and forgives duplicate keys. Neither is used.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cachesvc_format.names import clipped

FORMAT = "1"
FORMAT_KEY = "cachesvc.format"
# 11 fields take 1.5 KB; 85 MB of header cost safetensors 11 s and 1.7 GB.
MAX_HEADER_BYTES = 64 * 1024
DATA_ALIGNMENT_BYTES = 64
TENSOR_ALIGNMENT_BYTES = 16
# Real tensors have 4. Every reader, numpy included, takes more.
MAX_DIMENSIONS = 16
# Far above what any limit admits; keeps sizes within 63 bits for every reader.
MAX_SHAPE_BYTES = 2**40

# dtypes by their names in safetensors.
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
# By the PIL mode, for the modes in which images are kept.
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

HEADER_LENGTH = struct.Struct("<Q")
MAX_HEAD_BYTES = HEADER_LENGTH.size + MAX_HEADER_BYTES
_METADATA = "__metadata__"
_MODE_SUFFIX = ".mode"

Buffer = bytes | bytearray | memoryview


class BlobError(ValueError):
    """The bytes are not a blob, or the fields do not fit a blob."""


class OtherFormat(BlobError):
    """The blob is of another version of this format."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One field's value: a contiguous (C order), little-endian array.

    `data` is `size_bytes` long. `mode` is the PIL mode of an image (U8, of shape (H, W) or
    (H, W, C)), otherwise None.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Buffer
    mode: str | None = None

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class FieldLayout:
    """One field of a blob; `begin` and `end` are in bytes from the blob's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    mode: str | None = None

    @cached_property
    def count(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class BlobLayout:
    """The fields of one blob, in the order of their bytes, and its metadata."""

    fields: Mapping[str, FieldLayout]
    metadata: Mapping[str, str]


def blob_parts(tensors: Mapping[str, Tensor]) -> list[Buffer]:
    """Return the blob's parts, not copied: its header, then each tensor's own data.

    Equal tensors make equal blobs. Raises BlobError if the header would be too long.
    """
    ordered = sorted(tensors.items(), key=_rank)
    metadata = {FORMAT_KEY: FORMAT}
    header: dict[str, object] = {_METADATA: metadata}
    end = 0
    for name, tensor in ordered:
        assert memoryview(tensor.data).nbytes == tensor.size_bytes
        assert name != _METADATA
        start, end = end, end + tensor.size_bytes
        header[name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": (start, end),
        }
        if tensor.mode is not None:
            metadata[name + _MODE_SUFFIX] = tensor.mode
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(HEADER_LENGTH.size + len(text)) % DATA_ALIGNMENT_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise BlobError(f"the header would be longer than {MAX_HEADER_BYTES} bytes")
    return [HEADER_LENGTH.pack(len(text)) + text, *(tensor.data for _, tensor in ordered)]


def _rank(item: tuple[str, Tensor]) -> tuple[int, str]:
    name, tensor = item
    return -math.gcd(tensor.size_bytes, TENSOR_ALIGNMENT_BYTES), name


def header_end(head: memoryview, size_bytes: int) -> int:
    """Return where the header of a blob of `size_bytes` ends; `head` has at least 8 bytes.

    Raises BlobError: the header is missing, too long or cut short.
    """
    if len(head) < HEADER_LENGTH.size:
        raise BlobError(f"it has {len(head)} bytes, and the header's length alone has 8")
    end: int = HEADER_LENGTH.size + HEADER_LENGTH.unpack_from(head)[0]
    if end > MAX_HEAD_BYTES:
        raise BlobError(
            f"the header says that it has {end - HEADER_LENGTH.size:,} bytes, and a header may "
            f"have {MAX_HEADER_BYTES:,}: store fewer or shorter names and metadata"
        )
    if end > size_bytes:
        raise BlobError(f"it is cut short: it has {size_bytes:,} bytes, its header ends at {end:,}")
    return end


def read_layout(head: memoryview, size_bytes: int) -> BlobLayout:
    """Return where each field lies in a blob that begins with `head`. Raises as `read_header`."""
    end = header_end(head, size_bytes)
    return read_header(bytes(head[HEADER_LENGTH.size : end]), size_bytes)


def read_header(text: bytes, size_bytes: int) -> BlobLayout:
    """Return where each field lies in a blob of `size_bytes` that has the header `text`.

    Raises:
        BlobError: unless a well-formed header accounts for every byte.
        OtherFormat: if the header names another format, whatever its fields are.
    """
    header = _parsed(text)
    metadata = _checked_metadata(header.pop(_METADATA, {}))
    data_at = HEADER_LENGTH.size + len(text)
    fields = [_field(name, entry, data_at, metadata) for name, entry in header.items()]
    # Sort by `end` as well: an empty tensor begins where its neighbour begins.
    fields.sort(key=lambda field: (field.begin, field.end))
    _check_cover(fields, data_at, size_bytes)
    return BlobLayout({field.name: field for field in fields}, metadata)


def _parsed(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise BlobError("the header does not begin with `{`, as a JSON object does")
    try:
        header = json.loads(str(text, "utf-8"), object_pairs_hook=_unique)
    except BlobError:
        raise
    except (ValueError, RecursionError) as exc:
        raise BlobError("the header is not well-formed JSON") from exc
    assert isinstance(header, dict)  # it starts with a brace and has no trailing data
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise BlobError(f"the header has {clipped(name)} twice: leave one out")
        found[name] = value
    return found


def _checked_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict):
        what = "null" if metadata is None else "not an object"
        raise BlobError(f"{_METADATA} is {what}: leave it out, or make it an object of texts")
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise BlobError(f"{clipped(name)} of {_METADATA} is not text: make it text")
    if metadata.get(FORMAT_KEY, FORMAT) != FORMAT:
        raise OtherFormat(f"the blob is not of format {FORMAT}")
    return metadata


def _field(name: str, entry: Any, data_at: int, metadata: Mapping[str, str]) -> FieldLayout:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise BlobError(f"{clipped(name)} has not exactly dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], _checked_numbers(name, entry["shape"])
    offsets = _checked_numbers(name, entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        what = f"dtype {clipped(dtype)}" if isinstance(dtype, str) else "a dtype that is not text"
        raise BlobError(f"{clipped(name)} has {what}: convert it to one of {', '.join(ITEM_BYTES)}")
    item_bytes = ITEM_BYTES[dtype]
    count = math.prod(shape)
    # Include the other dimensions of an empty tensor: readers multiply them.
    if (count or math.prod(filter(None, shape))) * item_bytes > MAX_SHAPE_BYTES:
        raise BlobError(f"{clipped(name)} has too large a shape")
    if len(offsets) != 2 or offsets[1] - offsets[0] != count * item_bytes:
        raise BlobError(
            f"{clipped(name)} has a shape of {count * item_bytes:,} bytes as {dtype}, and other "
            "data_offsets: make them begin and end that many bytes apart"
        )
    mode = metadata.get(name + _MODE_SUFFIX)
    if mode is not None and not _fits_mode(mode, dtype, shape):
        raise BlobError(
            f"{clipped(name)} is not an image of mode {clipped(mode)}: that is U8, "
            f"of shape {_shape_text(mode)}"
        )
    return FieldLayout(name, dtype, shape, data_at + offsets[0], data_at + offsets[1], mode)


def _checked_numbers(name: str, values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MAX_DIMENSIONS:
        raise BlobError(f"{clipped(name)} has a shape or offsets of the wrong length")
    # `type() is`, because True is an int to isinstance.
    if any(type(value) is not int or value < 0 for value in values):
        raise BlobError(f"{clipped(name)} has a size or offset that is not a whole number")
    return tuple(values)


def _fits_mode(mode: str, dtype: str, shape: tuple[int, ...]) -> bool:
    if dtype != "U8" or len(shape) not in (2, 3):
        return False
    # An image of a mode that this version does not know can still be read as a tensor.
    return mode not in CHANNELS or shape == image_shape(mode, *shape[:2])


def _shape_text(mode: str) -> str:
    channels = CHANNELS.get(mode)
    return {None: "(H, W) or (H, W, C)", 1: "(H, W)"}.get(channels, f"(H, W, {channels})")


def image_shape(mode: str, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of the pixels: (H, W) for L, otherwise (H, W, C)."""
    channels = CHANNELS[mode]
    return (height, width) if channels == 1 else (height, width, channels)


def _check_cover(fields: Iterable[FieldLayout], start: int, end: int) -> None:
    """Raise BlobError unless the sorted fields cover each byte from `start` to `end` once."""
    at = start
    for field in fields:
        if field.begin != at:
            what = (
                "overlaps the tensor before it" if field.begin < at else "leaves a hole before it"
            )
            raise BlobError(
                f"{clipped(field.name)} {what}: begin it at byte {at - start:,} of the data, not "
                f"{field.begin - start:,}"
            )
        at = field.end
    if at > end:
        raise BlobError(f"it is cut short: the tensors end at byte {at:,}, the blob at {end:,}")
    if at < end:
        raise BlobError(f"it has {end - at:,} bytes behind its tensors: leave them out")
