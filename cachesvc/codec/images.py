"""Which pixels are in a PNG object, and how are pixels written back as one?

Pillow decodes, after the file's own structure was checked here: Pillow skips the
checksums of pixel data and warns instead of refusing, and a warning cannot be
turned into an error in one thread alone.

Modes L, LA, RGB and RGBA are kept as they are; 1 becomes L, P becomes RGB, or
RGBA where it has transparency. Modes of more than 8 bits per channel are refused,
except that Pillow itself reads 16-bit colour as 8-bit, as V2 did. EXIF
orientation is not applied, as in V2.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from cachesvc.codec.refusal import clipped, image_refused
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.tensors import Tensor

# An 8K frame; real images have 0.8 Mi. As RGBA that is 128 MiB, and three to four
# times as much while it is decoded. Below Pillow's own bomb warning (85 Mi).
MAX_IMAGE_PIXELS = 32 * 1024 * 1024
# Text, colour profiles, EXIF: all chunks beside header, palette and pixels, as stored.
# Pillow keeps what it does not know as well.
MAX_ANCILLARY_BYTES = 4 * 1024 * 1024
# Each may inflate to Pillow's own limit of 1 MiB.
MAX_ANCILLARY_CHUNKS = 32
# 8 KiB, the smallest chunk in common use, of the largest image, twice over.
MAX_CHUNKS = 32 * 1024
# An RGB photo of 768x1024 at level 1 is 15 % larger than at 6, Pillow's default, and
# written in 58 ms instead of 144; `optimize`, as V2 had it, took 0.8 s for one person.
COMPRESS_LEVEL = 1

MODE_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_SIZE = struct.Struct(">II")
_HEADER, _END = b"IHDR", b"IEND"
_OF_THE_IMAGE = (_HEADER, b"PLTE", b"IDAT", _END)
# A frame counts without the announcement too: of one that covers a part of the image
# Pillow shows that part, on black.
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def image_shape(mode: str, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of the pixels: (H, W) for L, else (H, W, C)."""
    channels = MODE_CHANNELS[mode]
    return (height, width) if channels == 1 else (height, width, channels)


def decode_png(data: bytes) -> Tensor:
    """Return the pixels, U8, (H, W) or (H, W, C), with their mode.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED, if `data` is no PNG, damaged, cut
            short, animated, too large or of a mode that is not kept.
    """
    _check_structure(memoryview(data))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            kept = _in_a_kept_mode(image)
            pixels = kept.tobytes()
    except (MemoryError, OriginDataCorrupt):
        raise
    except Exception as exc:
        # Whatever a decoder of foreign bytes trips over, the bytes are at fault.
        raise image_refused(f"Pillow cannot decode it ({type(exc).__name__})") from exc
    return Tensor("U8", image_shape(kept.mode, kept.height, kept.width), pixels, kept.mode)


def encode_png(tensor: Tensor) -> bytes:
    """Return the image as a PNG of its own mode, at COMPRESS_LEVEL."""
    assert tensor.mode in MODE_CHANNELS
    assert tensor.dtype == "U8"
    height, width = tensor.shape[:2]
    assert tensor.shape == image_shape(tensor.mode, height, width)
    pixels = np.frombuffer(tensor.data, np.uint8)  # Pillow's types know no memoryview
    image = Image.frombuffer(tensor.mode, (width, height), pixels, "raw", tensor.mode, 0, 1)
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=COMPRESS_LEVEL)
    return out.getvalue()


def _in_a_kept_mode(image: Image.Image) -> Image.Image:
    if image.mode in MODE_CHANNELS:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    raise image_refused(f"mode {clipped(image.mode)} has more than 8 bits per channel")


def _check_structure(data: memoryview) -> None:
    """Check size, checksums and limits of every chunk, up to and with the last one."""
    if data[:8] != _SIGNATURE:
        raise image_refused("it is not a PNG")
    at, ancillary_chunks, ancillary_bytes = len(_SIGNATURE), 0, 0
    for index in range(MAX_CHUNKS):
        name, body = _read_chunk(data, at)
        if index == 0:
            _check_size(name, body)
        elif name == _HEADER:
            # Pillow would take its size, which nobody has checked.
            raise image_refused("it has a second header")
        if name == _END:
            return
        if name not in _OF_THE_IMAGE:
            ancillary_chunks += 1
            ancillary_bytes += len(body)
        if ancillary_chunks > MAX_ANCILLARY_CHUNKS or ancillary_bytes > MAX_ANCILLARY_BYTES:
            raise image_refused("it has too much text or other data beside its pixels")
        at += _CHUNK.size + len(body) + _CRC.size
    raise image_refused(f"it has more than {MAX_CHUNKS} chunks")


def _read_chunk(data: memoryview, at: int) -> tuple[bytes, memoryview]:
    body_at = at + _CHUNK.size
    if body_at > len(data):
        raise image_refused("it is cut short")
    size_bytes, name = _CHUNK.unpack_from(data, at)
    end = body_at + size_bytes
    if end + _CRC.size > len(data):
        raise image_refused("it is cut short")
    if zlib.crc32(data[at + 4 : end]) != _CRC.unpack_from(data, end)[0]:
        raise image_refused("a chunk has a wrong checksum")
    if name in _ANIMATION:
        raise image_refused("it is animated")
    return name, data[body_at:end]


def _check_size(name: bytes, body: memoryview) -> None:
    if name != _HEADER or len(body) < _SIZE.size:
        raise image_refused("it has no header")
    width, height = _SIZE.unpack_from(body)
    if not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise image_refused(f"it has no pixels or more than {MAX_IMAGE_PIXELS}")
