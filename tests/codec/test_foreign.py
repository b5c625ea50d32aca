"""Does a refusal name what the bytes are, and the way that takes them?

Each sample is written by the format's own library if this machine has one, otherwise its first
bytes are those of its specification. Promise 7.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile
import zlib
from base64 import b64encode

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cachesvc.codec.images import plan_png
from cachesvc.codec.pickles import decode_pickle
from cachesvc.core.errors import OriginDataCorrupt


def _picture(written_as: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(out, written_as)
    return out.getvalue()


def _saved(value: object, *, as_zip: bool = True) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=as_zip)
    return out.getvalue()


def _array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


def _arrays() -> bytes:
    out = io.BytesIO()
    np.savez(out, pose=np.zeros(3))
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("mask.png", b"x")
    return out.getvalue()


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("mask.png"))
    return out.getvalue()


def _script() -> bytes:
    # The first record of an archive of torch.jit.save.
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/constants.pkl", b"\x80\x02).")
    return out.getvalue()


def _ftyp(brand: bytes) -> bytes:
    return b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0" + bytes(12)


PNG = _picture("PNG")
PICKLE = pickle.dumps(torch.ones(3))
S3_ERROR = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code>'
    b"<Message>Access Denied</Message></Error>"
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"
PAGE = "<!DOCTYPE html>\n<html><title>503</title></html>"

IMAGES = {
    "a JPEG image": _picture("JPEG"),
    "a WebP image": _picture("WEBP"),
    "an AVIF image": _ftyp(b"avif"),
    "a HEIC image": _ftyp(b"heic"),
    "a GIF image": _picture("GIF"),
    "a TIFF image": _picture("TIFF"),
    "a BMP image": _picture("BMP"),
    "a JPEG 2000 image": _picture("JPEG2000"),
    "an ICO image": _picture("ICO"),
    "a Netpbm image": _picture("PPM"),
    "a JPEG XL image": b"\xff\x0a" + bytes(30),
    "an SVG drawing": b'<?xml version="1.0"?>\n<!-- a -->\n<svg xmlns="x"/>',
}
PACKED = {
    "gzip data": gzip.compress(PNG),
    "bzip2 data": bz2.compress(PNG),
    "xz data": lzma.compress(PNG),
    "zlib data": zlib.compress(PNG),
    "zstd data": b"\x28\xb5\x2f\xfd" + bytes(20),
    "a zip archive": _zip(),
    "a tar archive": _tar(),
    "base64 text of a PNG image": b64encode(PNG),
    "base64 text of a pickle": b64encode(PICKLE),
    "a data URL": b"data:image/png;base64," + b64encode(PNG),
    "the text form of Python bytes": repr(PNG).encode(),
}
ANSWERS = {
    "an HTML page": PAGE.encode(),
    "an XML error page of S3 (AccessDenied)": S3_ERROR,
    "an XML page": b'<?xml version="1.0"?><feed/>',
    "JSON text": b'{"message": "not found"}',
    "an HTTP answer with its headers": b"HTTP/1.1 404 Not Found\r\n\r\n",
}
CHANGED = {
    "a PNG image that was transferred as text": PNG.replace(b"\r\n", b"\n"),
    "a PNG image that was read as UTF-8 text": PNG.decode("utf-8", "replace").encode(),
    "a PNG image that was encoded as UTF-8 text": PNG.decode("latin-1").encode(),
    "a pickle that was encoded as UTF-8 text": PICKLE.decode("latin-1").encode(),
    "binary data that was read as UTF-8 text": PICKLE.decode("utf-8", "replace").encode(),
    "a file that begins with zero bytes only": bytes(5000),
    "an upload whose aws-chunked encoding the store kept": b"10000;chunk-signature="
    + b"0" * 64
    + b"\r\n"
    + PNG,
    "an HTML form's upload with its headers": b"--x\r\nContent-Disposition: form-data\r\n\r\n",
}
POINTERS = {
    "a Git LFS pointer": LFS,
    "a git-annex pointer": b"/annex/objects/SHA256E-s1\n",
    "the AppleDouble file that macOS writes beside a file": b"\0\x05\x16\x07\0\x02\0\0",
}
OTHERS = {
    "a PDF document": _picture("PDF"),
    "a Parquet file": b"PAR1" + bytes(20),
    "text": b"not found\n",
    "UTF-16 text": "not found".encode("utf-16"),
    "UTF-8 text with a byte order mark": b"\xef\xbb\xbfnot found",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "a TorchScript or torch.package archive": _script(),
}
TENSORS = {
    "a file of torch.save": _saved(torch.ones(3)),
    "a file of torch.save ": _saved(torch.ones(3), as_zip=False),
    "a pickle": PICKLE,
    "a pickle ": pickle.dumps(torch.ones(3), protocol=0),
}
ARRAYS = {
    "a numpy array (.npy)": _array(),
    "a numpy archive (.npz)": _arrays(),
    "a safetensors file": safetensors.torch.save({"pose_tensor": torch.ones(3)}),
}
ANYWHERE = {**PACKED, **ANSWERS, **CHANGED, **POINTERS, **OTHERS}
EVERYTHING = {**IMAGES, **ANYWHERE, **TENSORS, **ARRAYS}


def _refusal_of_image(data: bytes) -> str:
    with pytest.raises(OriginDataCorrupt) as raised:
        plan_png(data)
    assert raised.value.reason == "IMAGE_REFUSED"
    return raised.value.message


def _refusal_of_tensor(data: bytes) -> str:
    with pytest.raises(OriginDataCorrupt) as raised:
        decode_pickle(data)
    assert raised.value.reason == "PICKLE_REFUSED"
    return raised.value.message


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_no_png_is_named_with_what_to_do(name: str) -> None:
    data = EVERYTHING[name]
    start = f"image refused: it is {name.strip()}, and this field reads PNG: "
    message = _refusal_of_image(data)
    assert message.startswith(start)
    assert len(message) > len(start)


@pytest.mark.parametrize("name", [*IMAGES, *ANYWHERE, *ARRAYS])
def test_what_is_no_pickle_is_named_with_what_to_do(name: str) -> None:
    data = {**IMAGES, **ANYWHERE, **ARRAYS}[name]
    reads = "this field reads one tensor of pickle.dumps or torch.save"
    start = f"pickle refused: it is {name}, and {reads}: "
    message = _refusal_of_tensor(data)
    assert message.startswith(start)
    assert len(message) > len(start)


def test_a_png_where_a_tensor_belongs_is_named() -> None:
    assert "it is a PNG image" in _refusal_of_tensor(PNG)
    assert "an image lies where a tensor belongs" in _refusal_of_tensor(PNG)


@pytest.mark.parametrize(("name", "way"), [("npy", _array()), ("safetensors", None)])
def test_put_is_named_where_it_takes_what_the_origin_does_not(name: str, way: bytes | None) -> None:
    data = way or ARRAYS["a safetensors file"]
    assert f"`cachesvc put` takes .{name}" in _refusal_of_tensor(data)


@pytest.mark.parametrize("size_bytes", range(1, 8))
def test_a_png_that_ends_within_its_signature_is_cut_short(size_bytes: int) -> None:
    assert "cut short" in _refusal_of_image(PNG[:size_bytes])


def test_what_nothing_knows_is_shown_by_its_first_bytes() -> None:
    assert "it begins with f1 02 00 9a 00 00 00 00" in _refusal_of_image(
        b"\xf1\x02\0\x9a" + bytes(9)
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_page_is_found_behind_a_byte_order_mark(encoding: str) -> None:
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    assert "it is an HTML page" in _refusal_of_image(mark + PAGE.encode(encoding))


def test_a_damaged_pickle_of_protocol_0_is_not_called_text() -> None:
    assert "os.system" in _refusal_of_tensor(b"cos\nsystem\n(S'true'\ntR.")


def test_no_data_is_called_empty() -> None:
    assert "it is empty" in _refusal_of_image(b"")
    assert "it is empty" in _refusal_of_tensor(b"")
