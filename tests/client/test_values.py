"""Which values may be stored, and how do they come back? torch, numpy and PIL."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cachesvc_client import InvalidRequest
from cachesvc_client._opened import opened
from cachesvc_client._values import fields_of
from cachesvc_client._views import writable_view
from cachesvc_client.answers import EntryInfo, EntryKey, Tier
from cachesvc_client.entry import Entry
from cachesvc_format.blob import blob_parts
from tests.client.support import values

INFO = EntryInfo(EntryKey("n", "i"), 0, Tier.MEMORY, "", 1, None, None, None, 1, "")


def entry_of(**stored: Any) -> Entry:
    blob = b"".join(blob_parts(fields_of(stored)))
    return Entry(opened(INFO, writable_view(blob)), lambda _: True)


@pytest.mark.parametrize(
    "tensor",
    [
        values.tensor(2, 3, dtype=torch.bfloat16),
        values.tensor(4, 6).t(),
        values.tensor(4, 6)[::2, 1::2],
        values.tensor(3, dtype=torch.float32).requires_grad_(),
        torch.tensor(7.5),
        torch.empty(0, 3),
        torch.tensor([True, False]),
        values.tensor(2, 3, 4).expand(5, 2, 3, 4),
        torch.tensor([1 + 2j]).real,
        torch.tensor([1 + 2j]).conj().imag,
    ],
    ids=[
        "bf16",
        "transposed",
        "strided",
        "grad",
        "scalar",
        "empty",
        "bool",
        "expanded",
        "view",
        "negated",
    ],
)
def test_a_tensor_of_any_strides_comes_back_equal_contiguous_and_plain(
    tensor: torch.Tensor,
) -> None:
    found = entry_of(a=tensor)["a"]
    assert found.dtype == tensor.dtype
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor.detach())
    assert found.is_contiguous()
    assert not found.requires_grad


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse()],
    ids=["complex", "sparse"],
)
def test_a_tensor_that_a_blob_cannot_hold_is_refused_by_name(tensor: torch.Tensor) -> None:
    with pytest.raises(InvalidRequest, match="pose_tensor") as caught:
        fields_of({"pose_tensor": tensor})
    assert caught.value.reason == "UNSUPPORTED_DTYPE"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.arange(6, dtype=">f4").reshape(2, 3).T,
        np.array(3, dtype=np.int64),
        np.zeros((0, 4), np.float64),
        np.array([True, False]),
    ],
    ids=["f16", "big-endian", "scalar", "empty", "bool"],
)
def test_an_array_comes_back_equal_and_writable(array: np.ndarray[Any, Any]) -> None:
    found = entry_of(a=array).numpy()["a"]
    assert found.shape == array.shape
    assert np.array_equal(found, array)
    assert found.flags.writeable


def test_an_array_that_a_blob_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be stored"):
        fields_of({"a": np.array(["text"])})
    with pytest.raises(InvalidRequest, match="list"):
        fields_of({"a": [1, 2]})


def test_numpy_names_the_field_that_it_cannot_hold() -> None:
    with pytest.raises(TypeError, match="pose_tensor is BF16"):
        entry_of(pose_tensor=torch.zeros(2, dtype=torch.bfloat16)).numpy()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_an_image_comes_back_in_its_mode(mode: str) -> None:
    image = values.image(mode, 7, 5)
    found = entry_of(a=image).image("a")
    assert (found.mode, found.size) == (mode, (7, 5))
    assert found.tobytes() == image.tobytes()


def test_an_image_is_also_a_tensor_of_height_width_channels() -> None:
    image = values.image("RGB", 7, 5)
    tensor = entry_of(a=image)["a"]
    assert tensor.shape == (5, 7, 3)
    assert torch.equal(tensor, torch.from_numpy(np.array(image)))


def test_a_gray_image_shares_the_blob_until_it_is_written_to() -> None:
    entry = entry_of(mask=values.image("L", 7, 5))
    image = entry.image("mask")
    entry["mask"][0, 0] = 200
    assert image.getpixel((0, 0)) == 200
    image.putpixel((0, 0), 17)
    assert entry["mask"][0, 0] == 200


def test_an_image_outlives_its_entry() -> None:
    original = values.image("L")
    image = entry_of(mask=original).image("mask")
    assert image.tobytes() == original.tobytes()


@pytest.mark.parametrize(
    ("options", "mode"), [({}, "RGB"), ({"transparency": 3}, "RGBA")], ids=["opaque", "transparent"]
)
def test_a_palette_becomes_colour_as_in_a_fill(options: dict[str, int], mode: str) -> None:
    file = io.BytesIO()
    values.image("RGB", 7, 5).quantize(16).save(file, "PNG", **options)
    image = Image.open(file)

    found = entry_of(a=image).image("a")

    assert found.mode == mode
    assert found.tobytes() == image.convert(mode).tobytes()


def test_a_bitmap_becomes_grey_as_in_a_fill() -> None:
    image = values.image("L", 7, 5).convert("1")

    found = entry_of(a=image).image("a")

    assert found.mode == "L"
    assert found.tobytes() == image.convert("L").tobytes()


def _file(array: object) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xd8\xff\xe0", "a JPEG image: put what PIL.Image.open(io.BytesIO(data)) returns"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image: put what PIL.Image.open(io.BytesIO(data)) returns"),
        (pickle.dumps(torch.ones(2)), "a pickle: put what pickle.loads or torch.load returns"),
        (_file(np.ones(2)), "a numpy array (.npy): put what numpy.load"),
        (safetensors.torch.save({"a": torch.ones(2)}), "put what safetensors.torch.load"),
        (b"\x1f\x8b\x08\0", "bytes that begin as gzip data"),
        (b"", "bytes that begin as empty"),
    ],
    ids=["JPEG", "PNG", "pickle", "npy", "safetensors", "gzip", "nothing"],
)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_bytes_of_a_file_are_named_with_what_opens_them(
    kind: Callable[[bytes], object], data: bytes, said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fields_of({"mask": kind(data)})
    assert caught.value.message.startswith("mask must be a PIL image")
    assert said.replace("bytes that", f"{kind.__name__} that") in caught.value.message


@pytest.mark.parametrize("path", ["mask.png", Path("mask.png")])
def test_a_path_is_told_to_be_opened(path: object) -> None:
    with pytest.raises(InvalidRequest, match="open the file first"):
        fields_of({"mask": path})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.eye(2).to_sparse(), "store tensor.to_dense()"),
        (lambda: torch.zeros(2).to(torch.float8_e4m3fn), "convert it to one of torch.bool"),
        (lambda: torch.zeros(2, dtype=torch.complex64), "store torch.view_as_real(tensor)"),
        (
            lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
            "store tensor.dequantize()",
        ),
        (lambda: np.zeros(2, dtype=np.uint16), "convert it to one of bool, uint8"),
    ],
    ids=["sparse", "float8", "complex", "quantized", "u16"],
)
def test_what_cannot_be_stored_is_told_what_to_store_instead(
    make: Callable[[], object], said: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fields_of({"pose": make()})
    assert said in caught.value.message


@pytest.mark.parametrize("mode", ["I;16", "CMYK", "F", "PA"])
def test_an_image_of_another_mode_is_refused_by_name(mode: str) -> None:
    with pytest.raises(InvalidRequest, match="mask") as caught:
        fields_of({"mask": Image.new(mode, (2, 2))})
    assert caught.value.reason == "UNSUPPORTED_IMAGE_MODE"


def test_a_tensor_is_no_image() -> None:
    with pytest.raises(TypeError, match="pose is not an image"):
        entry_of(pose=torch.zeros(2)).image("pose")
    with pytest.raises(KeyError):
        entry_of(pose=torch.zeros(2)).image("mask")


def test_torch_casts_floating_fields_only_and_copies_nothing_unasked() -> None:
    entry = entry_of(pose=values.tensor(2, 2), mask=values.image("L"), ids=torch.tensor([1]))
    plain = entry.torch()
    assert plain["pose"].data_ptr() == entry["pose"].data_ptr()
    cast = entry.torch(dtype=torch.bfloat16)
    assert {name: t.dtype for name, t in cast.items()} == {
        "pose": torch.bfloat16,
        "mask": torch.uint8,
        "ids": torch.int64,
    }
    assert entry.torch(device="meta")["pose"].device.type == "meta"


def test_fields_of_one_entry_are_views_of_one_blob() -> None:
    entry = entry_of(a=values.tensor(3), b=values.tensor(3, dtype=torch.float32))
    entry["a"].zero_()
    assert not entry["a"].any()
    assert not entry.numpy()["a"].any()
    assert entry["b"].any()


def test_a_misaligned_blob_still_gives_aligned_writable_tensors() -> None:
    tensor = values.tensor(5, dtype=torch.float64)
    blob = b"".join(blob_parts(fields_of({"a": tensor})))
    for shift in range(8):
        view = memoryview(bytearray(b"x" * shift + blob))[shift:]
        entry = Entry(opened(INFO, view), lambda _: True)
        assert entry["a"].data_ptr() % 8 == 0
        assert torch.equal(entry["a"], tensor)
        entry["a"].zero_()


def test_an_entry_is_a_mapping_by_identity() -> None:
    entry = entry_of(a=torch.zeros(2))
    assert list(entry) == ["a"]
    assert dict(entry).keys() == {"a"}
    assert entry == entry
    assert entry != entry_of(a=torch.zeros(2))
    assert "n/i" in repr(entry)
    with pytest.raises(KeyError):
        entry["b"]


LIGHT = """
import sys
import cachesvc_client, cachesvc_client.testing, cachesvc_client.v2
heavy = {"torch", "numpy", "PIL", "aioboto3", "botocore", "prometheus_client", "cachesvc"}
heavy |= {"fastapi", "pydantic"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_importing_the_client_loads_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, env={"PYTHONPATH": "client"})


class Opaque(torch.Tensor):
    """A tensor that wraps another, and has no memory of its own."""

    def detach(self) -> torch.Tensor:
        raise RuntimeError("no storage")


# Made on demand, because torch warns about some of them.
ODD_TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "meta": lambda: torch.empty(2, 3, device="meta"),
    "meta bf16": lambda: torch.empty(2, 3, device="meta", dtype=torch.bfloat16),
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "sparse": lambda: torch.zeros(2, 3).to_sparse(),
    "opaque": lambda: torch.zeros(2).as_subclass(Opaque),
    "conjugate": lambda: torch.zeros(2, dtype=torch.complex64).conj(),
    "float8": lambda: torch.zeros(2).to(torch.float8_e4m3fn),
    "quantized": lambda: torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", ODD_TENSORS.values(), ids=ODD_TENSORS)
def test_a_tensor_without_plain_values_is_refused_in_a_sentence_of_ours(
    make: Callable[[], torch.Tensor],
) -> None:
    tensor = make()
    with pytest.raises(InvalidRequest) as caught:
        fields_of({"pose": tensor})
    assert caught.value.reason in ("UNSUPPORTED_TYPE", "UNSUPPORTED_DTYPE")
    assert caught.value.message.startswith("pose")


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"a": 1}], dtype=object),
        np.zeros(2, dtype=[("x", "f4"), ("y", "i2")]),
        np.array(["text"]),
        np.array(["2026-01-01"], dtype="datetime64[s]"),
        np.zeros(2, dtype=np.complex64),
        np.zeros(2, dtype=np.uint16),
    ],
    ids=["objects", "structured", "text", "times", "complex", "u16"],
)
def test_an_array_that_no_entry_holds_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        fields_of({"pose": array})
    assert caught.value.reason == "UNSUPPORTED_DTYPE"
