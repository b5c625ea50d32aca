"""Is a file that `put` does not take named, with what to do, in one line?"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cachesvc.cli.commands.field_files import read_fields


def _picture(written_as: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, written_as)
    return out.getvalue()


def _array(array: object) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _arrays() -> bytes:
    out = io.BytesIO()
    np.savez(out, pose=np.zeros(3))
    return out.getvalue()


def _tensors(metadata: object) -> bytes:
    header = {"__metadata__": metadata, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"x"


NPY = _array(np.ones(100))
SAFETENSORS = safetensors.torch.save({"pose": torch.ones(3)})
REFUSED = {
    "JPEG named PNG": ("a.png", _picture("JPEG"), "it is a JPEG image, and this field reads PNG"),
    "WebP named PNG": ("a.png", _picture("WEBP"), "it is a WebP image, and this field reads PNG"),
    "JPEG": ("a.jpg", _picture("JPEG"), "it is a JPEG image: save it as PNG"),
    "array named PNG": ("a.png", NPY, "it is a numpy array (.npy)"),
    "array named pickle": ("a.pkl", NPY, "`cachesvc put` takes .npy"),
    "safetensors named torch": ("a.pt", SAFETENSORS, "`cachesvc put` takes .safetensors"),
    "pickle named array": (
        "a.npy",
        pickle.dumps(torch.ones(2)),
        "it is a pickle, and a .npy file holds one numpy array: rename it to .pkl or .pt or .pth",
    ),
    "PNG named array": ("a.npy", _picture("PNG"), "rename it to .png"),
    "npz named array": (
        "a.npy",
        _arrays(),
        ".npy file holds one numpy array: save one array of it as .npy",
    ),
    "npz": ("a.npz", _arrays(), "it is a numpy archive (.npz): save one array of it as .npy"),
    "array named safetensors": ("a.safetensors", NPY, "rename it to .npy"),
    "pointer named safetensors": (
        "a.safetensors",
        b"version https://git-lfs.github.com/spec/v1\n",
        "it is a Git LFS pointer",
    ),
    "page named array": ("a.npy", b"<html></html>", "it is an HTML page"),
    "objects": ("a.npy", _array(np.array([{}])), "it holds Python objects"),
    "array that is cut short": ("a.npy", NPY[:-1], "it is cut short: it has 927 of 928 bytes"),
    "header that is cut short": ("a.npy", NPY[:40], "its header is no numpy array's, or is cut"),
    "safetensors that is cut short": ("a.safetensors", SAFETENSORS[:-1], "it is cut short"),
    "header of safetensors": ("a.safetensors", SAFETENSORS[:20], "it is cut short"),
    "number in the metadata": ("a.safetensors", _tensors({"a": 1}), "'a' of __metadata__ is not"),
    "empty array": ("a.npy", b"", "it is empty"),
    "empty PNG": ("a.png", b"", "it is empty"),
    "empty safetensors": ("a.safetensors", b"", "it is empty"),
    "no ending": ("mask", _picture("PNG"), "it is a PNG image: rename it to .png"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_not_taken_is_named_with_what_to_do(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data, said = REFUSED[what]
    (tmp_path / name).write_bytes(data)

    with pytest.raises(SystemExit) as ended:
        read_fields([str(tmp_path / name)])

    message = capsys.readouterr().err
    assert ended.value.code == 2
    assert message.startswith(f"cachesvc: {tmp_path / name}: cannot be read: ")
    assert said in message
    assert message.count("\n") == 1


def test_metadata_of_null_is_no_reason_to_refuse_a_file_of_safetensors(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(_tensors(None))

    assert read_fields([str(tmp_path / "a.safetensors")])["a"].shape == (1,)


@pytest.mark.parametrize("ending", [".PNG", ".Png"])
def test_an_ending_may_be_in_capitals(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"mask{ending}").write_bytes(_picture("PNG"))

    assert read_fields([str(tmp_path / f"mask{ending}")])["mask"].mode == "RGB"
