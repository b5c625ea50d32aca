"""Files of every kind that a person or a pipeline may have, and what is made of each.

`tests/cli/test_both_ways.py` reads each of them by `put` and as an object of the origin.
"""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from tests.support import png_files, sample_objects
from tests.support.png_files import KINDS, chunk, png, with_chunks
from tests.support.tensor_forms import tensor_in_form

# By the field: what its object is called at the origin, and how a file of it ends.
IMAGE, TENSOR = "garm_img", "garm_tensor"
PLAIN = torch.arange(12.0).reshape(3, 4)


@dataclass(frozen=True)
class File:
    """One file, and what both ways have to make of it.

    `refused` is a part of the sentence. `plain` has the same pixels, if Pillow refuses `data`.
    """

    data: bytes
    refused: str = ""
    plain: bytes = b""
    field: str = IMAGE
    suffix: str = ".png"


def _picture(mode: str, size: tuple[int, int] = (13, 11)) -> Image.Image:
    return sample_objects.image("RGB", (16, 16), 3).resize(size).convert(mode)


def _saved(image: Image.Image, suffix: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, suffix, **options)
    return out.getvalue()


def _of_every_kind() -> Iterator[tuple[str, File]]:
    for colour, depth in KINDS:
        for interlaced in (0, 1):
            rows = png_files.rows(colour, depth, interlaced=interlaced)
            name = f"colour {colour} of {depth} bits{', interlaced' * interlaced}"
            yield name, File(png(colour, depth, interlaced=interlaced))
            long = b"".join([*rows, b"more"])
            yield f"{name}, too long", File(png(colour, depth, long, interlaced=interlaced))
            short = b"".join(rows)[:-1]
            short_png = png(colour, depth, short, interlaced=interlaced)
            yield f"{name}, too short", File(short_png, "cut short")


def _with_transparency() -> Iterator[tuple[str, File]]:
    for colour, depth in KINDS:
        alpha = chunk(b"tRNS", {0: b"\0\1", 2: b"\0\1" * 3, 3: b"\0\x80"}.get(colour, b""))
        yield f"colour {colour} of {depth} bits, tRNS", File(png(colour, depth, before=alpha))


def _with_other_chunks() -> Iterator[tuple[str, File]]:
    good = _saved(_picture("RGB"))
    text = chunk(b"tEXt", b"exif:Model\0a camera")
    yield "75 texts", File(with_chunks(good, text * 75))
    yield "5 MiB of text", File(with_chunks(good, chunk(b"tEXt", b"workflow\0" + bytes(5 << 20))))
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 << 20)))
    yield "64 texts that inflate to 8 MiB each", File(with_chunks(good, bomb * 64), plain=good)
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2 << 20)))
    yield "a profile of 2 MiB", File(with_chunks(good, profile), plain=good)
    yield "a damaged profile", File(with_chunks(good, chunk(b"iCCP", b"k\0\7x")), plain=good)
    yield (
        "EXIF behind the pixels",
        File(with_chunks(good, chunk(b"eXIf", b"II*\0" + bytes(70_000)), is_behind=True)),
    )
    yield "40,000 chunks", File(with_chunks(good, text * 40_000), "32768 chunks")


def _animated() -> Iterator[tuple[str, File]]:
    frames = {"save_all": True, "append_images": [_picture("RGB").rotate(90)]}
    yield "an animation", File(_saved(_picture("RGB"), **frames), "animated: 2 frames")
    one = chunk(b"acTL", struct.pack(">2I", 1, 0))
    frame = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 13, 11, 0, 0, 1, 1, 0, 0))
    yield "an animation of one frame", File(with_chunks(_saved(_picture("RGB")), one + frame))


def _others() -> Iterator[tuple[str, File]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"mode {mode}", File(_saved(_picture(mode)))
    deep = Image.fromarray(np.arange(143, dtype=np.uint16).reshape(11, 13))
    yield "mode I;16", File(_saved(deep), "I;16")
    good = _saved(_picture("RGB"))
    yield "a prefix", File(good[:-20], "cut short")
    yield "a flipped bit", File(good[:-30] + bytes((good[-30] ^ 1,)) + good[-29:], "checksum")
    yield (
        "no palette",
        File(png(3, 8).replace(png_files.PALETTE_OF_4, b""), "no palette before its pixels"),
    )
    yield "too many pixels", File(png(0, 8, b"", width=65_535, height=1_024), "more than 33554432")
    yield "too many rows", File(png(0, 8, b"", width=1, height=65_536), "rows or columns")
    for suffix in ("JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        yield suffix, File(_saved(_picture("RGB"), suffix), "this field reads PNG")
    yield "a pickle for an image", File(pickle.dumps(PLAIN), "a pickle, and this field reads PNG")
    yield "an array for an image", File(_array(), "a numpy array (.npy), and this field reads PNG")
    yield "a page", File(b"<!DOCTYPE html><html></html>", "an HTML page")
    yield "no bytes", File(b"", "it has no bytes")
    yield "text", File(b"no image", "it is text, and this field reads PNG")
    yield "no bytes that anybody knows", File(bytes(range(200, 250)), "no PNG")


def _tensor(data: bytes, refused: str = "") -> File:
    return File(data, refused, field=TENSOR, suffix=".pkl")


def _array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.ones(3, np.float32))
    return out.getvalue()


def _without_checksums() -> bytes:
    torch.serialization.set_crc32_options(False)
    try:
        return tensor_in_form("zip", PLAIN)
    finally:
        torch.serialization.set_crc32_options(True)


def _tensors() -> Iterator[tuple[str, File]]:
    for form in ("zip", "legacy", "raw"):
        yield f"a {form} tensor", _tensor(tensor_in_form(form, PLAIN))
    for protocol in range(6):
        yield f"protocol {protocol}", _tensor(pickle.dumps(PLAIN, protocol=protocol))
    yield "a parameter", _tensor(pickle.dumps(torch.nn.Parameter(PLAIN)))
    yield "bfloat16", _tensor(pickle.dumps(PLAIN.bfloat16()))
    yield "bool", _tensor(pickle.dumps(PLAIN > 3))
    yield "an expanded tensor", _tensor(tensor_in_form("zip", torch.ones(1).expand(300, 30)))
    yield "windows", _tensor(pickle.dumps(torch.arange(50.0).unfold(0, 20, 1)))
    yield "a file without checksums", _tensor(_without_checksums())


def _no_tensors() -> Iterator[tuple[str, File]]:
    huge = torch.ones(1).expand(2**27)
    yield (
        "expanded too far",
        _tensor(tensor_in_form("zip", huge), "larger than 268435456 bytes"),
    )
    for dtype, refused in ((torch.float8_e4m3fn, "float8"), (torch.complex64, "complex")):
        yield f"{dtype}", _tensor(tensor_in_form("zip", PLAIN.to(dtype)), refused)
    yield "a sparse tensor", _tensor(tensor_in_form("zip", PLAIN.to_sparse()), "sparse")
    yield "a dict", _tensor(tensor_in_form("zip", {"pose": PLAIN}), "a dict, not one tensor")
    yield "half a tensor", _tensor(tensor_in_form("zip", PLAIN)[:-20], "cut short")
    yield "a pickled array", _tensor(pickle.dumps(PLAIN.numpy()), "torch.from_numpy(array)")
    yield "an array", _tensor(_array(), "`cachesvc put` takes .npy")
    blob = safetensors.torch.save({"field": PLAIN})
    yield "safetensors", _tensor(blob, "`cachesvc put` takes .safetensors")
    yield "a PNG for a tensor", _tensor(_saved(_picture("L")), "a PNG image")
    yield "gzip for a tensor", _tensor(b"\x1f\x8b\x08" + bytes(40), "gzip data")
    yield "no bytes for a tensor", _tensor(b"", "it has no bytes")


FILES: dict[str, File] = dict(
    file
    for files in (
        _of_every_kind,
        _with_transparency,
        _with_other_chunks,
        _animated,
        _others,
        _tensors,
        _no_tensors,
    )
    for file in files()
)
