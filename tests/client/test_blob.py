"""A client's blobs: how torch tensors are written, and what the readers return. Promise 2."""

from __future__ import annotations

import json
import struct
import tempfile
from typing import Any

import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from cachesvc_client._blob import cut, read_layout, read_layout_of_file
from cachesvc_client._torch import field_of, tensor_of
from cachesvc_client._values import fields_of
from cachesvc_format.blob import (
    DATA_ALIGNMENT_BYTES,
    ITEM_BYTES,
    BlobError,
    Tensor,
    blob_parts,
)
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


def joined(fields: dict[str, Tensor]) -> bytes:
    return b"".join(blob_parts(fields))


def header_of(blob: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<Q", blob)
    parsed: dict[str, Any] = json.loads(blob[8 : 8 + length])
    return parsed


def with_header(header: object, data: bytes) -> memoryview:
    text = header if isinstance(header, bytes) else json.dumps(header).blob_parts()
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
    pieces = list(cut(blob_parts({"a": field_of("a", tensor)}), 512))
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
    # A blob that we accept must be safe to read.
    for field in layout.values():
        tensor_of(memoryview(blob), field)


def test_a_blob_is_read_from_a_file_as_from_memory() -> None:
    many = {f"{'x' * 100}{n}": Tensor("U8", (0,), b"") for n in range(100)}
    for fields in (fields_of(values.human()), many):
        blob = joined(fields)
        with tempfile.TemporaryFile(dir="/dev/shm") as file:
            file.write(blob)
            file.flush()
            of_file = read_layout_of_file(file.fileno(), len(blob))
        assert dict(of_file) == dict(read_layout(memoryview(blob)))
