"""Is a blob a safetensors file that can be mapped, and is any other file refused? Promise 2."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cachesvc.codec import blob as codec
from cachesvc_client import requests
from cachesvc_client.requests import PutOptions
from cachesvc_format.blob import (
    ITEM_BYTES,
    MAX_HEADER_BYTES,
    BlobError,
    BlobLayout,
    FieldLayout,
    OtherFormat,
    Tensor,
    blob_parts,
    read_layout,
)

METADATA = "__metadata__"
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
IMAGE = Tensor("U8", (2, 3, 3), bytes(18), "RGB")
TENSOR = Tensor("F16", (2, 4), bytes(range(16)))


def _tensors() -> st.SearchStrategy[Tensor]:
    shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    return st.builds(_filled, st.sampled_from(sorted(ITEM_BYTES)), shapes)


def _filled(dtype: str, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape) * ITEM_BYTES[dtype]
    return Tensor(dtype, shape, bytes(i % (2 if dtype == "BOOL" else 251) for i in range(count)))


def _blob(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _entry(
    dtype: object = "U8", shape: object = (4,), offsets: object = (0, 4)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def build_blob(tensors: Mapping[str, Tensor]) -> bytes:
    return b"".join(blob_parts(tensors))


def _layout(blob: bytes) -> BlobLayout:
    return read_layout(memoryview(blob), len(blob))


def _refusal(blob: bytes) -> str:
    with pytest.raises(BlobError) as raised:
        _layout(blob)
    assert len(str(raised.value)) < 250
    return str(raised.value)


@settings(deadline=None)
@given(st.dictionaries(st.text("abcxyz_.-0", min_size=1, max_size=6), _tensors(), max_size=6))
def test_a_blob_holds_every_tensor_where_its_layout_says(tensors: dict[str, Tensor]) -> None:
    blob = build_blob(tensors)

    layout = _layout(blob)

    assert layout.fields.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = layout.fields[name]
        assert (found.dtype, found.shape, found.mode) == (tensor.dtype, tensor.shape, None)
        assert blob[found.begin : found.end] == tensor.data
        assert found.begin % math.gcd(tensor.size_bytes, 16) == 0
        assert found.begin % ITEM_BYTES[tensor.dtype] == 0
    assert min((f.begin for f in layout.fields.values()), default=0) % 64 == 0


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

    layout = _layout(blob)

    assert layout.metadata == {"anything": "else"}
    for name, tensor in tensors.items():
        found = layout.fields[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert blob[found.begin : found.end] == tensor.data


def test_equal_tensors_make_equal_blobs_in_whatever_order_they_come() -> None:
    one = build_blob({"a": TENSOR, "b": IMAGE, "c": TENSOR})
    other = build_blob({"c": TENSOR, "b": IMAGE, "a": TENSOR})

    assert one == other


def test_fields_lie_by_their_alignment_and_then_by_their_names() -> None:
    blob = build_blob(
        {
            "b": Tensor("U8", (16,), bytes(16)),
            "odd": Tensor("U8", (3,), bytes(3)),
            "wide": Tensor("F32", (3,), bytes(12)),
            "half": Tensor("F16", (1,), bytes(2)),
            "a": Tensor("U8", (32,), bytes(32)),
        }
    )

    assert list(_layout(blob).fields) == ["a", "b", "wide", "half", "odd"]


def test_a_put_has_the_bytes_that_a_fill_of_the_same_fields_has() -> None:
    fields = {"z": Tensor("U8", (16,), bytes(16)), "a": TENSOR, "odd": Tensor("F16", (1,), b"ab")}
    put = requests.put("garment", "coat-1", fields, PutOptions())

    assert b"".join(put.pieces) == codec.build_blob(fields)


def test_an_entry_in_the_order_of_the_first_clients_is_read() -> None:
    """The first clients sorted by the dtype's width, so a short F16 came before a long U8."""
    blob = _blob(
        {
            METADATA: {"cachesvc.format": "1"},
            "half": _entry("F16", (1,), (0, 2)),
            "bytes": _entry("U8", (16,), (2, 18)),
        },
        bytes(18),
    )

    assert list(_layout(blob).fields) == ["half", "bytes"]
    assert codec.parse_layout(blob) == _layout(blob)


def test_numpy_reads_what_we_build() -> None:
    loaded = safetensors.numpy.load(build_blob({"tensor": TENSOR, "image": IMAGE}))

    assert loaded["tensor"].dtype == np.float16
    assert loaded["image"].shape == (2, 3, 3)


def test_the_metadata_has_the_format_and_each_image_s_mode() -> None:
    layout = _layout(build_blob({"tensor": TENSOR, "image": IMAGE}))

    assert layout.metadata == {"cachesvc.format": "1", "image.mode": "RGB"}
    assert layout.fields["image"].mode == "RGB"
    assert layout.fields["tensor"].mode is None


def test_a_layout_counts_from_the_blob_s_first_byte() -> None:
    blob = _blob({"b": _entry(offsets=(4, 8)), "a": _entry()}, b"aaaabbbb")

    layout = _layout(blob)

    start = len(blob) - 8
    assert layout == BlobLayout(
        {
            "a": FieldLayout("a", "U8", (4,), start, start + 4),
            "b": FieldLayout("b", "U8", (4,), start + 4, start + 8),
        },
        {},
    )
    assert list(layout.fields) == ["a", "b"]


def test_a_header_too_long_for_a_reader_is_not_written() -> None:
    names = {f"{i:0>128}": TENSOR for i in range(400)}

    with pytest.raises(BlobError, match="longer"):
        build_blob(names)


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
    "a mode of another shape": _blob({METADATA: {"a.mode": "RGB"}, "a": _entry()}, b"aaaa"),
    "a mode of another size": _blob(
        {METADATA: {"a.mode": "RGB"}, "a": _entry(shape=[2, 2])}, b"aaaa"
    ),
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
}


@pytest.mark.parametrize("name", BAD_BLOBS)
def test_a_blob_that_is_not_accounted_for_byte_by_byte_is_refused(name: str) -> None:
    _refusal(BAD_BLOBS[name])


def test_a_header_that_reaches_behind_the_end_is_refused_before_it_is_parsed() -> None:
    assert "cut short" in _refusal(BAD_BLOBS["a header behind the end"])


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
            0 <= field.begin <= field.end <= len(candidate) for field in layout.fields.values()
        )


def _parsed(blob: bytes) -> BlobLayout | None:
    try:
        return _layout(blob)
    except BlobError:
        return None


@given(st.binary(max_size=200))
@example((2).to_bytes(8, "little") + b"{}")  # the header of a blob without fields
def test_random_bytes_raise_nothing_but_a_blob_error(blob: bytes) -> None:
    _parsed(blob)


def test_another_format_is_told_apart_whatever_its_fields_are() -> None:
    blob = _blob({METADATA: {"cachesvc.format": "2"}, "a": "described in another way"})

    with pytest.raises(OtherFormat):
        _layout(blob)


def test_an_image_of_an_unknown_mode_is_readable_as_a_tensor() -> None:
    blob = _blob({METADATA: {"a.mode": "CMYK"}, "a": _entry(shape=[2, 2])}, b"aaaa")

    assert _layout(blob).fields["a"].mode == "CMYK"
