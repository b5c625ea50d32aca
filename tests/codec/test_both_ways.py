"""Is each file read by `cachesvc put` and by a fill alike, or refused by both for one cause?

`cachesvc put` reads files as the fields of an entry, a fill reads the origin's objects. An image
that a worker opened with Pillow and puts is a third way.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cachesvc.cli.commands.field_files import read_fields
from cachesvc.codec.members import decode_member, plan_member
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.kinds import Encoding, Field
from cachesvc_client._values import field_of
from cachesvc_format.blob import Tensor
from tests.support.tensor_forms import tensor_in_form

IMAGE = Field("field", Encoding.PNG, "{id}.png")
TENSOR = Field("field", Encoding.PICKLE, "{id}.pkl")


def _picture(mode: str, *, format: str = "PNG", **options: object) -> bytes:
    pixels = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(12, 16, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, format, **options)
    return out.getvalue()


def _animated(frames: int) -> bytes:
    pictures = [Image.new("RGB", (4, 4), (at, 0, 0)) for at in range(frames)]
    out = io.BytesIO()
    pictures[0].save(out, "PNG", save_all=True, append_images=pictures[1:], default_image=False)
    return out.getvalue()


def _with_text(size: int) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("workflow", "x" * size)
    return _picture("RGB", pnginfo=info)


def _sixteen_bits() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8)).save(out, "PNG")
    return out.getvalue()


def _array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.ones(3, np.float32))
    return out.getvalue()


def _without_checksums() -> bytes:
    torch.serialization.set_crc32_options(False)
    try:
        return tensor_in_form("zip", torch.ones(3))
    finally:
        torch.serialization.set_crc32_options(True)


PLAIN = torch.arange(12.0).reshape(3, 4)
IMAGES = {
    **{f"mode {mode}": _picture(mode) for mode in ("L", "LA", "RGB", "RGBA", "1", "P")},
    "a transparent palette": _picture("P", transparency=3),
    "16 bits": _sixteen_bits(),
    "interlaced": _picture("RGB", interlace=1),
    "one frame": _animated(1),
    "two frames": _animated(2),
    "some text": _with_text(100),
    "a megabyte of text": _with_text(2**20),
    "five megabytes of text": _with_text(5 * 2**20),
    "cut short": _picture("RGB")[:-20],
    "a flipped bit": bytes(_picture("RGB")[:60]) + b"\x00" + _picture("RGB")[61:],
    "a JPEG": _picture("RGB", format="JPEG"),
    "a WebP": _picture("RGB", format="WEBP"),
    "a pickle": pickle.dumps(PLAIN),
    "an array": _array(),
    "a page": b"<!DOCTYPE html><html></html>",
    "nothing": b"",
}
TENSORS = {
    **{form: tensor_in_form(form, PLAIN) for form in ("zip", "legacy", "raw")},
    **{f"protocol {each}": pickle.dumps(PLAIN, protocol=each) for each in range(6)},
    "a parameter": pickle.dumps(torch.nn.Parameter(PLAIN)),
    "bfloat16": pickle.dumps(PLAIN.bfloat16()),
    "bool": pickle.dumps(PLAIN > 3),
    "expanded": tensor_in_form("zip", torch.ones(1).expand(300, 30)),
    "expanded too far": tensor_in_form("zip", torch.ones(1).expand(2**27)),
    "windows": pickle.dumps(torch.arange(50.0).unfold(0, 20, 1)),
    "no checksums": _without_checksums(),
    "float8": tensor_in_form("zip", PLAIN.to(torch.float8_e4m3fn)),
    "complex": tensor_in_form("zip", PLAIN.to(torch.complex64)),
    "sparse": tensor_in_form("zip", PLAIN.to_sparse()),
    "a dict": tensor_in_form("zip", {"pose": PLAIN}),
    "cut short": tensor_in_form("zip", PLAIN)[:-20],
    "a pickled array": pickle.dumps(PLAIN.numpy()),
    "an array": _array(),
    "safetensors": safetensors.torch.save({"field": PLAIN}),
    "a PNG": _picture("L"),
    "gzip": b"\x1f\x8b\x08" + bytes(40),
    "nothing": b"",
}


def _of_a_fill(field: Field, data: bytes) -> Tensor | str:
    """Return the value, or the refusal."""
    try:
        plan_member(field, data)
        return decode_member(field, data)
    except OriginDataCorrupt as exc:
        return exc.message


def _of_a_put(path: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> Tensor | str:
    path.write_bytes(data)
    try:
        return field_of("field", read_fields([f"field={path}"])["field"])
    except SystemExit:
        return capsys.readouterr().err


def _assert_agree(filled: Tensor | str, put: Tensor | str) -> None:
    if isinstance(filled, Tensor) and isinstance(put, Tensor):
        assert (put.dtype, put.shape, put.mode) == (filled.dtype, filled.shape, filled.mode)
        assert bytes(put.data) == bytes(filled.data)
        return
    assert isinstance(filled, str)
    assert isinstance(put, str)
    assert filled in put


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_taken_by_both_or_refused_by_both(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put = _of_a_put(tmp_path / "any.png", IMAGES[name], capsys)

    _assert_agree(_of_a_fill(IMAGE, IMAGES[name]), put)


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".pth", ".PKL"])
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_is_taken_by_both_or_refused_by_both(
    name: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put = _of_a_put(tmp_path / f"any{suffix}", TENSORS[name], capsys)

    _assert_agree(_of_a_fill(TENSOR, TENSORS[name]), put)


@pytest.mark.parametrize(
    "name", [name for name in IMAGES if isinstance(_of_a_fill(IMAGE, IMAGES[name]), Tensor)]
)
def test_what_a_worker_opens_with_pillow_is_what_a_fill_reads(name: str) -> None:
    filled = _of_a_fill(IMAGE, IMAGES[name])
    with Image.open(io.BytesIO(IMAGES[name])) as image:
        _assert_agree(filled, field_of("field", image))


READ_BY_PUT_ALONE: dict[str, Callable[[Path], None]] = {
    ".npy": lambda path: np.save(path, PLAIN.numpy()),
    ".safetensors": lambda path: safetensors.torch.save_file({"field": PLAIN}, path),
}


@pytest.mark.parametrize("suffix", READ_BY_PUT_ALONE)
def test_a_fill_names_put_for_what_put_alone_takes(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"field{suffix}"
    READ_BY_PUT_ALONE[suffix](path)

    assert f"`cachesvc put` takes {suffix}" in str(_of_a_fill(TENSOR, path.read_bytes()))
    assert field_of("field", read_fields([str(path)])["field"]).shape == (3, 4)
