"""May this blob be stored as an entry of its kind? Promise 2.

tests/format/test_blob.py checks the format itself.
"""

from __future__ import annotations

import json
import math
import struct

import pytest
import safetensors.torch
import torch

from cachesvc.codec.blob import build_blob, check_blob, parse_layout
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.kinds import HUMAN, TEXT, Encoding, Field, Kind, Namespace, Subject
from cachesvc_format.blob import ITEM_BYTES, MAX_HEADER_BYTES, Tensor

PHOTO = Kind(
    name="photo",
    namespaces=(Namespace("photo"),),
    fields=(
        Field("image", Encoding.PNG, "{id}.png"),
        Field("tensor", Encoding.PICKLE, "{id}.pkl"),
    ),
    subject=Subject.USER,
    max_entries=1,
)
IMAGE = Tensor("U8", (2, 3, 3), bytes(18), "RGB")
TENSOR = Tensor("F16", (2, 4), bytes(range(16)))


def _blob(header: object, header_bytes: int) -> bytes:
    text = json.dumps(header).encode().ljust(header_bytes)
    return struct.pack("<Q", len(text)) + text + b"aaaa"


def _field(dtype: str, shape: tuple[int, ...]) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": (0, 4)}


def test_a_layout_is_read_from_any_buffer() -> None:
    blob = build_blob({"tensor": TENSOR})

    assert parse_layout(memoryview(blob)) == parse_layout(bytearray(blob)) == parse_layout(blob)


def test_a_header_too_long_for_a_reader_is_not_written() -> None:
    names = {f"{i:0>128}": TENSOR for i in range(400)}

    with pytest.raises(InvalidRequest) as raised:
        build_blob(names)
    assert raised.value.reason == "INVALID_BLOB"


REFUSED = {
    "no blob": b"",
    "a header above the limit": _blob({}, MAX_HEADER_BYTES + 8),
    "a field that is not described": _blob({"x" * 300: 1}, 400),
    "an unknown mode": _blob({"__metadata__": {"a.mode": "CMYK"}, "a": _field("U8", (2, 2))}, 128),
    "an odd address": _blob({"a": _field("F16", (2,))}, 65),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_blob_or_cannot_be_used_by_every_reader_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        parse_layout(REFUSED[name])
    assert raised.value.reason == "INVALID_BLOB"
    assert len(raised.value.message) < 250


def _laid(tensors: list[tuple[str, str, int]], header_bytes: int | None = None) -> bytes:
    """Return a blob of one-dimensional tensors, `(name, dtype, count)`, in this order."""
    header, end = {}, 0
    for name, dtype, count in tensors:
        begin, end = end, end + count * ITEM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text = text.ljust(header_bytes or len(text) + -len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(end)


def _refusal_of(blob: bytes) -> str:
    with pytest.raises(InvalidRequest) as raised:
        parse_layout(blob)
    assert raised.value.reason == "INVALID_BLOB"
    return raised.value.message


def test_a_tensor_behind_smaller_elements_is_told_to_change_the_order() -> None:
    tensors = [("mask", "U8", 3), ("pose", "F32", 4)]

    message = _refusal_of(_laid(tensors))

    assert "'pose' begins at byte 3 of the data, and its elements have 4" in message
    assert "lay tensors of larger elements first" in message
    assert "pad" not in message
    parse_layout(_laid(tensors[::-1]))


@pytest.mark.parametrize("header_bytes", [97, 98, 100])
def test_data_at_an_odd_address_is_told_to_pad_the_header(header_bytes: int) -> None:
    message = _refusal_of(_laid([("pose", "F64", 4)], header_bytes))

    assert f"the data begins at byte {header_bytes + 8}" in message
    assert "pad the header with spaces to a multiple of 8 bytes" in message
    assert "order" not in message
    assert "first" not in message
    parse_layout(_laid([("pose", "F64", 4)], 104))


def test_what_safetensors_itself_writes_is_aligned() -> None:
    tensors = {
        str(dtype): torch.ones(3, dtype=dtype)
        for dtype in (torch.uint8, torch.float64, torch.bool, torch.bfloat16)
    }

    assert len(parse_layout(safetensors.torch.save(tensors)).fields) == 4


def _with(metadata: object) -> bytes:
    return _blob({"__metadata__": metadata, "a": _field("U8", (4,))}, 128)


TOLD = {
    "metadata of null": (_with(None), "__metadata__ is null: leave it out"),
    "metadata of a number": (_with(1), "__metadata__ is not an object: leave it out"),
    "a number in the metadata": (_with({"step": 7}), "'step' of __metadata__ is not text"),
    "float8": (
        _blob({"a": _field("F8_E4M3", (4,))}, 128),
        "'a' has dtype 'F8_E4M3': convert it to one of BOOL, U8",
    ),
    "a dtype of null": (_blob({"a": _field(None, (4,))}, 128), "a dtype that is not text"),
    "a hole": (
        _blob({"a": {"dtype": "U8", "shape": [2], "data_offsets": [2, 4]}}, 128),
        "'a' leaves a hole before it: begin it at byte 0 of the data, not 2",
    ),
    "too few bytes": (_blob({"a": _field("U8", (4,))}, 128)[:-1], "it is cut short"),
    "bytes behind": (_blob({"a": _field("U8", (4,))}, 128) + b"x", "1 bytes behind its tensors"),
    "a shape of other bytes": (
        _blob({"a": _field("F16", (4,))}, 128),
        "a shape of 8 bytes as F16, and other data_offsets",
    ),
    "a header that is cut short": (_blob({"a": _field("U8", (4,))}, 128)[:100], "it is cut short"),
    "a mode that is not the shape's": (
        _blob({"__metadata__": {"a.mode": "RGB"}, "a": _field("U8", (2, 2))}, 128),
        "not an image of mode 'RGB': that is U8, of shape (H, W, 3)",
    ),
    "a mode that is not kept": (REFUSED["an unknown mode"], "convert it to one of L, LA, RGB"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(100), "it is a PNG image, and a Put takes"),
    "a pickle": (b"\x80\x04\x95" + bytes(100), "it is a pickle, and a Put takes"),
    "a numpy array": (b"\x93NUMPY" + bytes(100), "it is a numpy array (.npy), and a Put takes"),
    "gzip data": (b"\x1f\x8b" + bytes(100), "it is gzip data, and a Put takes"),
    "a page": (b"<!DOCTYPE html>" + b" " * 100, "it is an HTML page, and a Put takes"),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_refused_blob_is_told_what_has_to_change(name: str) -> None:
    blob, said = TOLD[name]

    message = _refusal_of(blob)

    assert said in message
    assert len(message) < 250


def test_a_blob_with_exactly_the_kind_s_fields_is_accepted() -> None:
    blob = build_blob({"tensor": TENSOR, "image": IMAGE})

    assert check_blob(PHOTO, blob) == parse_layout(blob)


def test_a_blob_that_safetensors_wrote_with_modes_is_accepted() -> None:
    blob = safetensors.torch.save(
        {"image": torch.zeros(2, 3, dtype=torch.uint8), "tensor": torch.ones(5).bfloat16()},
        metadata={"image.mode": "L"},
    )

    layout = check_blob(PHOTO, blob)

    assert layout.fields["image"].mode == "L"
    assert layout.fields["tensor"].dtype == "BF16"


def test_missing_and_unexpected_fields_are_named() -> None:
    blob = build_blob({"tensor": TENSOR, "other": TENSOR})

    with pytest.raises(InvalidRequest) as raised:
        check_blob(PHOTO, blob)
    assert raised.value.reason == "WRONG_FIELDS"
    assert "missing 'image'" in raised.value.message
    assert "unexpected 'other'" in raised.value.message


def test_a_thousand_unexpected_fields_are_named_in_one_line() -> None:
    empty = Tensor("U8", (0,), b"")
    blob = build_blob({f"field-{i}": empty for i in range(900)})

    with pytest.raises(InvalidRequest) as raised:
        check_blob(TEXT, blob)
    assert "more" in raised.value.message
    assert len(raised.value.message) < 500


def test_another_kind_s_entry_is_refused() -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_blob(HUMAN, build_blob({"tensor": TENSOR, "image": IMAGE}))
    assert raised.value.reason == "WRONG_FIELDS"


def test_a_blob_of_a_later_format_is_refused_as_such() -> None:
    blob = safetensors.torch.save({"tensor": torch.ones(1)}, metadata={"cachesvc.format": "2"})

    with pytest.raises(InvalidRequest) as raised:
        check_blob(PHOTO, blob)
    assert raised.value.reason == "WRONG_FORMAT"


BAD_FIELDS = {
    "an image without a mode": {"image": Tensor("U8", (2, 3), bytes(6))},
    "an image of floats": {"image": Tensor("F32", (2, 3), bytes(24), "L")},
    "an image of signed bytes": {"image": Tensor("I8", (2, 3), bytes(6), "L")},
    "an image of one dimension": {"image": Tensor("U8", (6,), bytes(6), "L")},
    "an image of four dimensions": {"image": Tensor("U8", (1, 2, 3, 3), bytes(18), "RGB")},
    "an image without pixels": {"image": Tensor("U8", (0, 3), b"", "L")},
    "grey with a channel": {"image": Tensor("U8", (2, 3, 1), bytes(6), "L")},
    "colour without channels": {"image": Tensor("U8", (2, 3), bytes(6), "RGB")},
    "colour with four channels": {"image": Tensor("U8", (2, 3, 4), bytes(24), "RGB")},
    "channels first": {"image": Tensor("U8", (3, 2, 5), bytes(30), "RGB")},
    "a tensor with a mode": {"tensor": Tensor("U8", (2, 3), bytes(6), "L")},
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_field_that_does_not_fit_its_encoding_is_refused(name: str) -> None:
    blob = build_blob({"tensor": TENSOR, "image": IMAGE, **BAD_FIELDS[name]})

    with pytest.raises(InvalidRequest) as raised:
        check_blob(PHOTO, blob)
    assert raised.value.reason == "INVALID_BLOB"


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("L", (2, 3)), ("LA", (2, 3, 2)), ("RGB", (2, 3, 3)), ("RGBA", (2, 3, 4))],
)
def test_an_image_of_each_kept_mode_is_accepted(mode: str, shape: tuple[int, ...]) -> None:
    image = Tensor("U8", shape, bytes(math.prod(shape)), mode)

    layout = check_blob(PHOTO, build_blob({"tensor": TENSOR, "image": image}))

    assert layout.fields["image"].mode == mode


@pytest.mark.parametrize("dtype", sorted(ITEM_BYTES))
def test_a_tensor_of_each_dtype_is_accepted(dtype: str) -> None:
    blob = build_blob(
        {"tensor": Tensor(dtype, (3, 2), bytes(6 * ITEM_BYTES[dtype])), "image": IMAGE}
    )

    assert check_blob(PHOTO, blob).fields["tensor"].dtype == dtype
