"""Do the readers of each form read what `persist` writes, and is the form found kept?

Promise 7.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cachesvc.codec.pickle_writer import legacy_file_parts
from cachesvc.codec.pickles import decode_pickle
from cachesvc.codec.tensor_forms import encoded
from cachesvc.codec.torch_zip_writer import zip_file_parts
from cachesvc.core.errors import InvalidRequest
from cachesvc.engine.fill import START_BYTES
from cachesvc_format.blob import ITEM_BYTES, Tensor
from tests.support.tensor_forms import DTYPES, FORMS, loaded, tensor_in_form

WRITERS = {"zip": zip_file_parts, "legacy": legacy_file_parts}
SHAPES = [(), (0,), (1,), (3, 4, 5), (255,), (256, 1), (70_000,), (2, 0, 3)]


def _tensor(dtype: str, shape: tuple[int, ...]) -> Tensor:
    count = int(np.prod(shape))
    data = bytes(
        at * 37 % (2 if dtype == "BOOL" else 251) for at in range(count * ITEM_BYTES[dtype])
    )
    return Tensor(dtype, shape, data)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _written(form: str, tensor: Tensor) -> bytes:
    return b"".join(WRITERS[form](tensor))


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_loads_what_we_write_without_code(
    dtype: str, shape: tuple[int, ...], form: str
) -> None:
    ours = _tensor(dtype, shape)

    written = _written(form, ours)

    read = loaded(form, written)
    assert (read.dtype, read.shape) == (DTYPES[dtype], torch.Size(shape))
    assert _bytes(read) == ours.data
    assert decode_pickle(written) == ours
    assert _written(form, _tensor(dtype, shape)) == written


def test_torch_maps_the_zip_file_that_we_write(tmp_path: Path) -> None:
    ours = _tensor("F32", (1000,))
    (tmp_path / "pose.pt").write_bytes(_written("zip", ours))

    mapped = torch.load(tmp_path / "pose.pt", mmap=True, weights_only=True)

    assert _bytes(mapped) == ours.data


def test_the_zip_file_is_sound_and_its_elements_are_aligned() -> None:
    written = _written("zip", _tensor("F16", (100,)))

    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert archive.testzip() is None
        assert {record.compress_type for record in archive.infolist()} == {zipfile.ZIP_STORED}
    assert written.index(_tensor("F16", (100,)).data) % 64 == 0


@pytest.mark.parametrize("write", WRITERS.values())
def test_a_tensor_that_could_not_be_read_back_is_not_written(write: object) -> None:
    with pytest.raises(InvalidRequest) as raised:
        write(Tensor("U8", (256 * 1024 * 1024 + 1,), b""))
    assert raised.value.reason == "TENSOR_TOO_LARGE"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["pose_tensor.pkl", "pose.pt", "pose"])
def test_the_form_found_is_kept_whatever_the_key(form: str, key: str) -> None:
    start = tensor_in_form(form, torch.ones(3))[:START_BYTES]

    written = encoded(_tensor("F32", (2,)), start, key)

    assert _bytes(loaded(form, written)) == _tensor("F32", (2,)).data


@pytest.mark.parametrize("protocol", range(6))
def test_a_raw_pickle_of_every_protocol_stays_one(protocol: int) -> None:
    start = pickle.dumps(torch.ones(3), protocol=protocol)[:START_BYTES]

    assert loaded("raw", encoded(_tensor("F32", (2,)), start, "pose.pt")).shape == (2,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_legacy_file_of_every_protocol_stays_one(protocol: int) -> None:
    out = io.BytesIO()
    torch.save(torch.ones(3), out, pickle_protocol=protocol, _use_new_zipfile_serialization=False)

    written = encoded(_tensor("F32", (2,)), out.getvalue()[:START_BYTES], "pose.pkl")

    assert torch.load(io.BytesIO(written), weights_only=True).shape == (2,)


def test_a_file_with_a_long_name_of_its_folder_stays_a_file_of_torch(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 200}.pt"
    torch.save(torch.ones(3), path)

    written = encoded(_tensor("F32", (2,)), path.read_bytes()[:START_BYTES], "pose.pkl")

    assert loaded("zip", written).shape == (2,)


@pytest.mark.parametrize(
    "start", [b"", b"\xff\xd8\xff\xe0", b"\x93NUMPY", b"PK\x03\x04" + bytes(40), b"<html>"]
)
@pytest.mark.parametrize(
    ("key", "form"), [("pose.pkl", "raw"), ("pose", "raw"), ("a/pose.pt", "zip"), ("x.pth", "zip")]
)
def test_where_no_tensor_is_the_keys_ending_decides(start: bytes, key: str, form: str) -> None:
    assert loaded(form, encoded(_tensor("F32", (2,)), start, key)).shape == (2,)
