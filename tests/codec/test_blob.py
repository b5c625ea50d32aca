"""Is a blob a safetensors file that can be mapped, and is every other one refused? Promise 2."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cachesvc.codec.blob import (
    MAX_HEADER_BYTES,
    BlobLayout,
    FieldLayout,
    build_blob,
    check_blob,
    parse_layout,
)
from cachesvc.core.errors import InvalidRequest
from cachesvc.core.kinds import HUMAN, TEXT, Encoding, Field, Kind, Namespace, Subject
from cachesvc.core.tensors import DTYPE_SIZE_BYTES, Tensor

TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
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


def _tensors() -> st.SearchStrategy[Tensor]:
    shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    return st.builds(_filled, st.sampled_from(sorted(DTYPE_SIZE_BYTES)), shapes)


def _filled(dtype: str, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape) * DTYPE_SIZE_BYTES[dtype]
    return Tensor(dtype, shape, bytes(i % (2 if dtype == "BOOL" else 251) for i in range(count)))


def _blob(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _entry(
    dtype: object = "U8", shape: object = (4,), offsets: object = (0, 4)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def _refusal(blob: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        parse_layout(blob)
    assert raised.value.reason == "INVALID_BLOB"
    assert len(raised.value.message) < 250
    return raised.value


@settings(deadline=None)
@given(st.dictionaries(st.text("abcxyz_.-0", min_size=1, max_size=6), _tensors(), max_size=6))
def test_a_blob_holds_every_tensor_where_its_layout_says(tensors: dict[str, Tensor]) -> None:
    blob = build_blob(tensors)

    layout = parse_layout(blob)

    assert layout.fields.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = layout.fields[name]
        assert (found.dtype, found.shape, found.mode) == (tensor.dtype, tensor.shape, None)
        assert blob[found.offset : found.offset + found.size_bytes] == tensor.data
        assert found.offset % math.gcd(tensor.size_bytes, 16) == 0
        assert found.offset % DTYPE_SIZE_BYTES[tensor.dtype] == 0
    assert min((f.offset for f in layout.fields.values()), default=0) % 64 == 0


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), _tensors(), max_size=5))
def test_torch_and_safetensors_read_what_we_build(tensors: dict[str, Tensor]) -> None:
    loaded = safetensors.torch.load(build_blob(tensors))

    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == TORCH_DTYPES[tensor.dtype]
        assert tuple(loaded[name].shape) == tensor.shape
        words = loaded[name].contiguous().reshape(-1).view(torch.uint8)
        assert words.numpy().tobytes() == tensor.data


@settings(deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), _tensors(), max_size=5))
def test_blobs_that_safetensors_wrote_are_understood(tensors: dict[str, Tensor]) -> None:
    theirs = {
        name: torch.frombuffer(bytearray(t.data or b"\0" * 8), dtype=TORCH_DTYPES[t.dtype])[
            : math.prod(t.shape)
        ].reshape(t.shape)
        for name, t in tensors.items()
    }
    blob = safetensors.torch.save(theirs, metadata={"anything": "else"})

    layout = parse_layout(blob)

    assert layout.metadata == {"anything": "else"}
    for name, tensor in tensors.items():
        found = layout.fields[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert blob[found.offset : found.offset + found.size_bytes] == tensor.data


def test_equal_tensors_make_equal_blobs_in_whatever_order_they_come() -> None:
    one = build_blob({"a": TENSOR, "b": IMAGE, "c": TENSOR})
    other = build_blob({"c": TENSOR, "b": IMAGE, "a": TENSOR})

    assert one == other


def test_numpy_reads_what_we_build() -> None:
    loaded = safetensors.numpy.load(build_blob({"tensor": TENSOR, "image": IMAGE}))

    assert loaded["tensor"].dtype == np.float16
    assert loaded["image"].shape == (2, 3, 3)


def test_the_metadata_has_the_format_and_each_image_s_mode() -> None:
    layout = parse_layout(build_blob({"tensor": TENSOR, "image": IMAGE}))

    assert layout.metadata == {"cachesvc.format": "1", "image.mode": "RGB"}
    assert layout.fields["image"].mode == "RGB"
    assert layout.fields["tensor"].mode is None


def test_a_layout_counts_from_the_blob_s_first_byte() -> None:
    blob = _blob({"b": _entry(offsets=(4, 8)), "a": _entry()}, b"aaaabbbb")

    layout = parse_layout(blob)

    start = len(blob) - 8
    assert layout == BlobLayout(
        {"a": FieldLayout("U8", (4,), start, 4), "b": FieldLayout("U8", (4,), start + 4, 4)}, {}
    )
    assert list(layout.fields) == ["a", "b"]


def test_a_layout_is_read_from_any_buffer() -> None:
    blob = build_blob({"tensor": TENSOR})

    assert parse_layout(memoryview(blob)) == parse_layout(bytearray(blob)) == parse_layout(blob)


def test_a_header_too_long_for_a_reader_is_not_written() -> None:
    names = {f"{i:0>128}": TENSOR for i in range(400)}

    with pytest.raises(InvalidRequest) as raised:
        build_blob(names)
    assert raised.value.reason == "INVALID_BLOB"


METADATA = "__metadata__"
BAD_BLOBS = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "a header behind the end": struct.pack("<Q", 100) + b"{}",
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header above the limit": _blob(b"{}" + b" " * MAX_HEADER_BYTES),
    "no JSON": _blob(b"{nothing}"),
    "an array": _blob([]),
    "spaces before the header": _blob(b"  {}"),
    "two objects": _blob(b"{}{}"),
    "bytes that are not UTF-8": _blob(b'{"\xff": 1}'),
    "deep arrays": _blob(b'{"a":' + b"[" * 60_000),
    "deep objects": _blob(b'{"a":' * 10_000),
    "a key twice": _blob(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"x",
    ),
    "a key of an entry twice": _blob(
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"
    ),
    "metadata twice": _blob(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata that is a list": _blob({METADATA: []}),
    "metadata with a number": _blob({METADATA: {"a": 1}}),
    "an unknown mode": _blob({METADATA: {"a.mode": "CMYK"}, "a": _entry()}, b"aaaa"),
    "an entry that is a number": _blob({"a": 1}),
    "an entry without a dtype": _blob({"a": {"shape": [4], "data_offsets": [0, 4]}}, b"aaaa"),
    "an entry with more": _blob({"a": {**_entry(), "more": 1}}, b"aaaa"),
    "an unknown dtype": _blob({"a": _entry(dtype="F8_E4M3")}, b"aaaa"),
    "a dtype that is a list": _blob({"a": _entry(dtype=["U8"])}, b"aaaa"),
    "a bool as size": _blob({"a": _entry(shape=[True, 4])}, b"aaaa"),
    "a float as size": _blob({"a": _entry(shape=[4.0])}, b"aaaa"),
    "infinity as size": _blob(b'{"a":{"dtype":"U8","shape":[Infinity],"data_offsets":[0,4]}}'),
    "text as size": _blob({"a": _entry(shape=["4"])}, b"aaaa"),
    "text as shape": _blob({"a": _entry(shape="4")}, b"aaaa"),
    "null as shape": _blob({"a": _entry(shape=None)}, b"aaaa"),
    "negative sizes": _blob({"a": _entry(shape=[-2, -2])}, b"aaaa"),
    "17 dimensions": _blob({"a": _entry(shape=[1] * 16 + [4])}, b"aaaa"),
    "a number of 60,000 digits": _blob(b'{"a":' + b"9" * 60_000 + b"}"),
    "a size that overflows": _blob({"a": _entry(shape=[2**62, 2**62, 0], offsets=(0, 0))}),
    "one offset": _blob({"a": _entry(offsets=[4])}, b"aaaa"),
    "three offsets": _blob({"a": _entry(offsets=[0, 4, 4])}, b"aaaa"),
    "offsets in the wrong order": _blob({"a": _entry(offsets=[4, 0])}, b"aaaa"),
    "a size that differs from the shape": _blob({"a": _entry(shape=[3])}, b"aaaa"),
    "a hole at the start": _blob({"a": _entry(offsets=(4, 8))}, b"....aaaa"),
    "a hole in the middle": _blob({"a": _entry(), "b": _entry(offsets=(8, 12))}, b"aaaa....bbbb"),
    "a hole at the end": _blob({"a": _entry()}, b"aaaa...."),
    "an overlap": _blob({"a": _entry(), "b": _entry(offsets=(2, 6))}, b"aaaabb"),
    "the same bytes twice": _blob({"a": _entry(), "b": _entry()}, b"aaaa"),
    "an overlap and a hole of one size": _blob({"a": _entry(), "b": _entry()}, b"aaaabbbb"),
    "data that is cut short": _blob({"a": _entry()}, b"aaa"),
    "data without a tensor": _blob({}, b"a"),
    "an odd address": struct.pack("<Q", 65)
    + json.dumps({"a": _entry("F16", (2,))}).encode().ljust(65)
    + b"aaaa",
}


@pytest.mark.parametrize("name", BAD_BLOBS)
def test_a_blob_that_is_not_accounted_for_byte_by_byte_is_refused(name: str) -> None:
    _refusal(BAD_BLOBS[name])


def test_a_header_that_reaches_behind_the_end_is_refused_before_it_is_parsed() -> None:
    assert "cut short" in _refusal(BAD_BLOBS["a header behind the end"]).message


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 4095),
)
def test_a_damaged_blob_is_understood_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    blob = bytearray(build_blob({"tensor": TENSOR, "image": IMAGE}))
    for at, value in changes:
        blob[at % len(blob)] = value

    for candidate in (bytes(blob), bytes(blob[: cut % len(blob)])):
        layout = _parsed(candidate)
        assert layout is None or all(
            field.offset + field.size_bytes <= len(candidate) for field in layout.fields.values()
        )


def _parsed(blob: bytes) -> BlobLayout | None:
    try:
        return parse_layout(blob)
    except InvalidRequest:
        return None


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


@pytest.mark.parametrize("dtype", sorted(DTYPE_SIZE_BYTES))
def test_a_tensor_of_each_dtype_is_accepted(dtype: str) -> None:
    blob = build_blob({"tensor": _filled(dtype, (3, 2)), "image": IMAGE})

    assert check_blob(PHOTO, blob).fields["tensor"].dtype == dtype
