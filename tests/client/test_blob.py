"""The blob's writer and strict reader, against the safetensors library. Promise 2."""

from __future__ import annotations

import contextlib
import json
import struct
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cachesvc_client._blob import (
    DATA_ALIGNMENT_BYTES,
    ITEM_BYTES,
    BlobError,
    FieldData,
    Layout,
    cut,
    encode,
    read_layout,
)
from cachesvc_client._torch import field_of, tensor_of
from cachesvc_client._values import fields_of
from tests.client.support import values

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
]  # fmt: skip
tensors = st.builds(
    lambda dtype, shape: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 4), max_size=3),
)


def joined(fields: dict[str, FieldData]) -> bytes:
    return b"".join(encode(fields))


def header_of(blob: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", blob)
    parsed: dict[str, Any] = json.loads(blob[8 : 8 + length])
    return parsed


def with_header(header: object, data: bytes) -> memoryview:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return memoryview(struct.pack("<Q", len(text)) + text + data)


@given(st.dictionaries(st.text(st.characters(codec="ascii"), max_size=8), tensors, max_size=5))
def test_safetensors_reads_what_we_write(stored: dict[str, torch.Tensor]) -> None:
    stored.pop("__metadata__", None)
    read = safetensors.torch.load(joined(fields_of(stored)))
    assert set(read) == set(stored)
    for name, value in stored.items():
        assert read[name].dtype == value.dtype
        assert read[name].shape == value.shape
        assert torch.equal(read[name], value)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), tensors, max_size=5))
def test_we_read_what_safetensors_writes(stored: dict[str, torch.Tensor]) -> None:
    blob = memoryview(bytearray(safetensors.torch.save(stored)))
    layout = read_layout(blob)
    assert {name: tuple(value.shape) for name, value in stored.items()} == {
        name: field.shape for name, field in layout.items()
    }


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), tensors, max_size=5))
def test_the_data_starts_at_64_and_every_field_is_aligned(stored: dict[str, torch.Tensor]) -> None:
    blob = joined(fields_of(stored))
    assert (8 + struct.unpack_from("<Q", blob)[0]) % DATA_ALIGNMENT_BYTES == 0
    for field in read_layout(memoryview(blob)).values():
        assert field.begin % ITEM_BYTES[field.dtype] == 0


def test_metadata_names_the_format_and_the_images_modes() -> None:
    blob = joined(fields_of(values.human()))
    assert header_of(blob)["__metadata__"] == {
        "cachesvc.format": "1",
        "human_img.mode": "RGB",
        "mask.mode": "L",
        "mask_gray.mode": "L",
    }


def test_pieces_share_the_tensors_memory_and_are_cut_without_copies() -> None:
    tensor = torch.zeros(1000, dtype=torch.float16)
    pieces = list(cut(encode({"a": field_of("a", tensor)}), 512))
    assert [len(piece) for piece in pieces[-4:]] == [512, 512, 512, 464]
    assert max(len(piece) for piece in pieces) == 512
    tensor[0] = 1.0
    assert bytes(pieces[-4][:2]) == struct.pack("<e", 1.0)


@given(st.data())
def test_a_damaged_blob_is_a_blob_error_or_still_covers_its_bytes(data: st.DataObject) -> None:
    blob = bytearray(joined(fields_of(values.garment())))
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, 300))] = data.draw(st.integers(0, 255))
    try:
        layout = read_layout(memoryview(blob))
    except BlobError:
        return
    assert all(0 <= field.begin <= field.end <= len(blob) for field in layout.values())
    # What we accept must be safe to look at.
    for field in layout.values():
        tensor_of(memoryview(blob), field)


@given(st.binary(max_size=200))
@example((2).to_bytes(8, "little") + b"{}")  # that of no field at all
def test_random_bytes_raise_nothing_but_a_blob_error(blob: bytes) -> None:
    with contextlib.suppress(BlobError):
        assert isinstance(read_layout(memoryview(blob)), Layout)


def field(shape: list[Any], begin: Any, end: Any, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (b"[1]", "not an object"),
        (b"\xff{}", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b'{"a":1,"a":2}', "not JSON|twice"),
        ({"a": 1}, "not described"),
        ({"a": field([4], 0, 4, "F8")}, "unknown dtype"),
        ({"a": field([4], 0, 4, 7)}, "unknown dtype"),  # type: ignore[arg-type]
        ({"a": field([True], 0, 1)}, "bad shape"),
        ({"a": field([-4], 0, 4)}, "bad shape"),
        ({"a": field([2], 0, 4)}, "not its shape"),
        ({"a": field([2], 2, 4)}, "hole"),
        ({"a": field([4], 0, 4), "b": field([2], 2, 4)}, "overlap"),
        ({"a": field([8], 0, 8)}, "shorter or longer"),
        ({"a": field([3], 0, 3)}, "shorter or longer"),
        ({"__metadata__": {"cachesvc.format": "2"}, "a": field([4], 0, 4)}, "newer format"),
        ({"__metadata__": {"n": 1}, "a": field([4], 0, 4)}, "not text"),
        ({"__metadata__": {"a.mode": "L"}, "a": field([4], 0, 4)}, "image mode"),
        ({"__metadata__": {"a.mode": "RGB"}, "a": field([2, 2], 0, 4)}, "image mode"),
    ],
)
def test_a_header_that_lies_is_refused(header: object, why: str) -> None:
    with pytest.raises(BlobError, match=why):
        read_layout(with_header(header, b"\0" * 4))


def test_a_header_beyond_64_kib_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BlobError, match="out of range"):
        read_layout(with_header(b" " * (64 * 1024 + 1), b""))
    with pytest.raises(BlobError, match="64 KiB"):
        encode({f"{'x' * 100}{n}": FieldData("U8", (0,), b"") for n in range(700)})
