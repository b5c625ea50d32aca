"""May this blob be stored as an entry of its kind?

`cachesvc_format.blob` has the format. This module has the limits on a Put's blob.
"""

from __future__ import annotations

from collections.abc import Mapping

from cachesvc.codec.png_chunks import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.kinds import Encoding, Kind
from cachesvc.core.tensors import Buffer
from cachesvc_format import blob as blob_format
from cachesvc_format.blob import (
    CHANNELS,
    ITEM_BYTES,
    BlobError,
    BlobLayout,
    FieldLayout,
    OtherFormat,
    Tensor,
)
from cachesvc_format.foreign import Family, name_of
from cachesvc_format.names import clipped

MAX_NAMES_ECHOED = 8


def build_blob(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the blob of one entry: the same bytes for the same tensors, copied once."""
    return b"".join(blob_parts(tensors))


def blob_parts(tensors: Mapping[str, Tensor]) -> list[Buffer]:
    """Return the same blob in parts, not copied: its header, then each tensor's own data.

    Raises:
        InvalidRequest: reason INVALID_BLOB, if the names do not fit the header.
    """
    try:
        return blob_format.blob_parts(tensors)
    except BlobError as exc:
        raise _invalid(str(exc)) from exc


def parse_layout(blob: Buffer, size_bytes: int | None = None) -> BlobLayout:
    """Return where each tensor of `blob` lies. Reads the header only.

    With `size_bytes`, the length of the whole blob, its first MAX_HEAD_BYTES are enough.

    Raises:
        InvalidRequest: reason INVALID_BLOB, unless a well-formed header accounts for every
            byte of `blob`; WRONG_FORMAT for another version of this format.
    """
    view = memoryview(blob).cast("B")
    try:
        layout = blob_format.read_layout(view, len(view) if size_bytes is None else size_bytes)
    except OtherFormat as exc:
        raise InvalidRequest(str(exc), reason="WRONG_FORMAT") from exc
    except BlobError as exc:
        raise _invalid(_what_it_is(view) or str(exc)) from exc
    _check_modes(layout)
    _check_alignment(layout)
    return layout


def check_blob(kind: Kind, blob: Buffer, size_bytes: int | None = None) -> BlobLayout:
    """Return the layout of a blob that is an entry of `kind`, all of its fields and no more.

    `size_bytes` as in `parse_layout`.

    Raises:
        InvalidRequest: as `parse_layout`, or reason WRONG_FIELDS.
    """
    layout = parse_layout(blob, size_bytes)
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


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(f"the blob is refused: {message}", reason="INVALID_BLOB")


def _named(names: list[str]) -> str:
    echoed = ", ".join(clipped(name) for name in names[:MAX_NAMES_ECHOED])
    more = len(names) - MAX_NAMES_ECHOED
    return (echoed or "none") + (f" and {more} more" if more > 0 else "")


def _what_it_is(view: memoryview) -> str | None:
    found = name_of(view)
    if found is None or found.family is Family.SAFETENSORS:
        return None
    return f"it is {found.name}, and a Put takes the entry's fields as one safetensors file"


def _check_modes(layout: BlobLayout) -> None:
    for field in layout.fields.values():
        if field.mode is not None and field.mode not in CHANNELS:
            raise _invalid(
                f"{clipped(field.name)} has image mode {clipped(field.mode)}: convert it to one of "
                f"{', '.join(CHANNELS)}"
            )


def _check_alignment(layout: BlobLayout) -> None:
    """Torch and numpy require that elements are aligned to their size."""
    data_at = min((field.begin for field in layout.fields.values()), default=0)
    for field in layout.fields.values():
        item_bytes = ITEM_BYTES[field.dtype]
        if (field.begin - data_at) % item_bytes:
            raise _invalid(
                f"{clipped(field.name)} begins at byte {field.begin - data_at:,} of the data, and "
                f"its elements have {item_bytes}: lay tensors of larger elements first"
            )
        if data_at % item_bytes:
            raise _invalid(
                f"the data begins at byte {data_at:,}, and the elements of {clipped(field.name)} "
                f"have {item_bytes}: pad the header with spaces to a multiple of 8 bytes"
            )


def _check_image(name: str, field: FieldLayout) -> None:
    if field.mode is None:
        raise _invalid(
            f"{name} is an image: U8, (H, W) or (H, W, C), and {name}.mode in the metadata"
        )
    height, width = field.shape[:2]
    if not 0 < height * width <= MAX_IMAGE_PIXELS:
        raise _invalid(f"{name} has no pixels or more than {MAX_IMAGE_PIXELS}")
    if max(height, width) > MAX_IMAGE_SIDE:
        raise _invalid(f"{name} has more than {MAX_IMAGE_SIDE} rows or columns")
