"""Where does each field of an entry lie in its blob, and may this blob be stored?

A blob is one safetensors file: 8 bytes of header length, a JSON header, then the
tensors without holes. Ours are written so that a reader may map them:

- the data starts at a multiple of 64 bytes (the header is padded with spaces);
- tensors whose size is a multiple of 16 come first, so each of them starts at a
  multiple of 16, then those of 8, 4, 2, 1: no element straddles its alignment;
- `__metadata__` has `cachesvc.format` and, per image, `{field}.mode` (PIL's).

Written here because safetensors' own writer aligns the data to 8 bytes only, and
read here because its parser takes headers of 100 MB and forgives duplicate keys.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from cachesvc.codec.images import MODE_CHANNELS, image_shape
from cachesvc.codec.png_chunks import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE
from cachesvc.codec.refusal import clipped
from cachesvc.codec.torch_views import MAX_DIMENSIONS
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.kinds import Encoding, Kind
from cachesvc.core.tensors import DTYPE_SIZE_BYTES, Buffer, Tensor

BLOB_FORMAT = "1"
FORMAT_KEY = "cachesvc.format"
# 11 fields take 1.5 KB; 85 MB of header cost safetensors 11 s and 1.7 GB.
MAX_HEADER_BYTES = 64 * 1024
DATA_ALIGNMENT_BYTES = 64
TENSOR_ALIGNMENT_BYTES = 16
# Far above what any limit admits; keeps sizes within 63 bits for every reader.
MAX_SHAPE_BYTES = 2**40
MAX_NAMES_ECHOED = 8

_HEADER_LENGTH = struct.Struct("<Q")
MAX_HEAD_BYTES = _HEADER_LENGTH.size + MAX_HEADER_BYTES
_METADATA = "__metadata__"
_MODE_SUFFIX = ".mode"


@dataclass(frozen=True, slots=True)
class FieldLayout:
    """One tensor of a blob; `offset` is in bytes from the blob's first byte."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class BlobLayout:
    """Where everything lies in one blob; the fields' order is that of their bytes."""

    fields: Mapping[str, FieldLayout]
    metadata: Mapping[str, str]


def build_blob(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the blob of one entry: the same bytes for the same tensors, copied once."""
    return b"".join(blob_parts(tensors))


def blob_parts(tensors: Mapping[str, Tensor]) -> list[Buffer]:
    """Return the parts of that blob, not copied: its header, then each tensor's own data."""
    ordered = sorted(tensors.items(), key=_place)
    metadata = {FORMAT_KEY: BLOB_FORMAT}
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
    text += b" " * (-(_HEADER_LENGTH.size + len(text)) % DATA_ALIGNMENT_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise _invalid(f"its header would be longer than {MAX_HEADER_BYTES} bytes")
    return [_HEADER_LENGTH.pack(len(text)) + text, *(tensor.data for _, tensor in ordered)]


def parse_layout(blob: Buffer, size_bytes: int | None = None) -> BlobLayout:
    """Return where each tensor of `blob` lies. Reads the header only.

    With `size_bytes`, which is how long the whole is, its first MAX_HEAD_BYTES are enough.

    Raises:
        InvalidRequest: reason INVALID_BLOB, unless every byte of `blob` is accounted
            for by a well-formed header.
    """
    view = memoryview(blob).cast("B")
    header, data_at = _read_header(view)
    metadata = _checked_metadata(header.pop(_METADATA, {}))
    found = [
        (name, _checked_field(name, entry, data_at, metadata)) for name, entry in header.items()
    ]
    # By end too: an empty tensor starts where its neighbour does.
    found.sort(key=lambda item: (item[1].offset, item[1].size_bytes))
    at = data_at
    for _, field in found:
        if field.offset != at:
            raise _invalid("its tensors overlap or leave holes")
        at += field.size_bytes
    if at != (len(view) if size_bytes is None else size_bytes):
        raise _invalid("its tensors do not end where it ends")
    return BlobLayout(dict(found), metadata)


def check_blob(kind: Kind, blob: Buffer, size_bytes: int | None = None) -> BlobLayout:
    """Return the layout of a blob that is an entry of `kind`, all of its fields and no more.

    `size_bytes` as in `parse_layout`.

    Raises:
        InvalidRequest: reason INVALID_BLOB, or WRONG_FIELDS, or WRONG_FORMAT for another
            version of this format.
    """
    layout = parse_layout(blob, size_bytes)
    if layout.metadata.get(FORMAT_KEY, BLOB_FORMAT) != BLOB_FORMAT:
        raise InvalidRequest(f"the blob is not of format {BLOB_FORMAT}", reason="WRONG_FORMAT")
    missing = [name for name in kind.field_names if name not in layout.fields]
    unexpected = sorted(layout.fields.keys() - set(kind.field_names))
    if missing or unexpected:
        raise InvalidRequest(
            f"the blob is not of kind {kind.name}: missing {_named(missing)}; "
            f"unexpected {_named(unexpected)}",
            reason="WRONG_FIELDS",
        )
    for field in kind.fields:
        found = layout.fields[field.name]
        if field.encoding is Encoding.PNG:
            _check_image(field.name, found)
        elif found.mode is not None:
            raise _invalid(f"{field.name} is a tensor but has an image's mode")
    return layout


def _place(item: tuple[str, Tensor]) -> tuple[int, str]:
    name, tensor = item
    return -math.gcd(tensor.size_bytes, TENSOR_ALIGNMENT_BYTES), name


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(f"the blob is refused: {message}", reason="INVALID_BLOB")


def _named(names: list[str]) -> str:
    echoed = ", ".join(clipped(name) for name in names[:MAX_NAMES_ECHOED])
    more = len(names) - MAX_NAMES_ECHOED
    return (echoed or "none") + (f" and {more} more" if more > 0 else "")


def _read_header(view: memoryview) -> tuple[dict[str, object], int]:
    if len(view) < _HEADER_LENGTH.size:
        raise _invalid("it is shorter than a header's length")
    size_bytes = _HEADER_LENGTH.unpack_from(view)[0]
    if size_bytes > MAX_HEADER_BYTES:
        raise _invalid(f"its header is longer than {MAX_HEADER_BYTES} bytes")
    data_at = _HEADER_LENGTH.size + size_bytes
    if data_at > len(view):
        raise _invalid("its header is cut short")
    raw = bytes(view[_HEADER_LENGTH.size : data_at])
    if not raw.startswith(b"{"):
        raise _invalid("its header is not a JSON object")
    try:
        header = json.loads(
            str(raw, "utf-8"),
            object_pairs_hook=_unique,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as exc:
        raise _invalid("its header is not well-formed JSON") from exc
    assert isinstance(header, dict)  # it starts with a brace and has no trailing data
    return header, data_at


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _invalid("its header has a key twice")
    return found


def _no_number(text: str) -> float:
    raise _invalid(f"its header has {clipped(text)} where a whole number belongs")


def _checked_metadata(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict):
        raise _invalid("its metadata is not an object")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid("its metadata has a value that is not text")
    return metadata


def _checked_field(
    name: str, entry: object, data_at: int, metadata: Mapping[str, str]
) -> FieldLayout:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _invalid(f"{clipped(name)} has not exactly dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], _checked_numbers(name, entry["shape"])
    offsets = _checked_numbers(name, entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in DTYPE_SIZE_BYTES:
        raise _invalid(f"{clipped(name)} has an unknown dtype")
    item_bytes = DTYPE_SIZE_BYTES[dtype]
    # The other dimensions of an empty tensor count too: readers multiply them.
    if math.prod(max(size, 1) for size in shape) * item_bytes > MAX_SHAPE_BYTES:
        raise _invalid(f"{clipped(name)} has too large a shape")
    size_bytes = math.prod(shape) * item_bytes
    if len(offsets) != 2 or offsets[1] - offsets[0] != size_bytes:
        raise _invalid(f"the shape and the offsets of {clipped(name)} differ")
    mode = metadata.get(name + _MODE_SUFFIX)
    if mode is not None and mode not in MODE_CHANNELS:
        raise _invalid(f"{clipped(name)} has an unknown image mode")
    offset = data_at + offsets[0]
    if offset % item_bytes:
        # torch and numpy want whole elements at their own alignment.
        raise _invalid(f"{clipped(name)} is not aligned; pad the header with spaces to 8 bytes")
    return FieldLayout(dtype, shape, offset, size_bytes, mode)


def _checked_numbers(name: str, values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MAX_DIMENSIONS:
        raise _invalid(f"{clipped(name)} has a shape or offsets of the wrong length")
    # `type() is`, because True is an int to isinstance.
    if any(type(value) is not int or value < 0 for value in values):
        raise _invalid(f"{clipped(name)} has a size or offset that is not a whole number")
    return tuple(values)


def _check_image(name: str, field: FieldLayout) -> None:
    if field.dtype != "U8" or len(field.shape) not in (2, 3):
        raise _invalid(f"{name} is an image: U8, (H, W) or (H, W, C)")
    if field.mode is None:
        raise _invalid(f"{name} is an image: the metadata must have {name}{_MODE_SUFFIX}")
    height, width = field.shape[:2]
    if field.shape != image_shape(field.mode, height, width):
        raise _invalid(f"the shape of {name} does not fit mode {field.mode}")
    if not 0 < height * width <= MAX_IMAGE_PIXELS:
        raise _invalid(f"{name} has no pixels or more than {MAX_IMAGE_PIXELS}")
    if max(height, width) > MAX_IMAGE_SIDE:
        raise _invalid(f"{name} has more than {MAX_IMAGE_SIDE} rows or columns")
