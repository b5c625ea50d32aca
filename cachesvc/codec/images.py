"""Which pixels are in a PNG object, and how are pixels written back as a PNG?

The file's own structure is checked first (png_chunks.py). Plain images are decoded by faster
libraries (png_pixels.py), the others by Pillow.

Modes L, LA, RGB and RGBA are kept unchanged; 1 becomes L, P becomes RGB, or RGBA if it
has transparency. Modes of more than 8 bits per channel are refused, except that Pillow
itself reads 16-bit colour as 8-bit, as in V2. EXIF orientation is not applied, as in V2.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, cast

import numpy as np
from PIL import Image

from cachesvc.codec.png_chunks import pixel_chunks, read_header
from cachesvc.codec.png_pixels import inflate
from cachesvc.codec.refusal import image_refused
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.parts_file import PartsFile
from cachesvc.core.tensors import Buffer, DecodePlan
from cachesvc_format.blob import CHANNELS, Tensor, image_shape

# At level 1, an RGB photo of 768x1024 is 15 % larger than at 6, Pillow's default, and takes
# 58 ms to write instead of 144. V2's `optimize` took 0.8 s for one person.
COMPRESS_LEVEL = 1

# Size of one copy. A copy holds the interpreter, and so the loop: 1 MiB for 0.2 ms, 64 MiB for
# 20 to 40 ms.
STRIPE_BYTES = 1024 * 1024
# Pillow reads the file in larger blocks: after each block it waits for the interpreter.
_BLOCK_BYTES = 4 * 1024 * 1024
# Bytes that Pillow keeps of a pixel: four for every mode of more than one channel.
_PILLOW_PIXEL_BYTES = 4


def plan_png(data: bytes) -> DecodePlan:
    """Return the size of the pixels, and how much memory decoding them takes.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED, if `data` is no PNG, too large, or has an
            invalid header.
    """
    header = read_header(data)
    pixels = header.width * header.height
    size_bytes = pixels * header.kept_channels
    # The file, its stream in one piece, the rows, Pillow's image and the pixels. A plain image
    # needs less.
    pillow_bytes = pixels * (1 if header.channels == 1 else _PILLOW_PIXEL_BYTES)
    most_bytes = pixels * (_PILLOW_PIXEL_BYTES if header.has_palette else header.kept_channels)
    needed_bytes = 2 * len(data) + 2 * header.rows_bytes + pillow_bytes + most_bytes
    return DecodePlan(size_bytes, needed_bytes + 2 * _BLOCK_BYTES)


def decode_png(data: bytes) -> Tensor:
    """Return the pixels, U8, (H, W) or (H, W, C), with their mode.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED, if `data` is no PNG, damaged, cut
            short, animated, too large or of a mode that is not kept.
    """
    inflated = inflate(read_header(data), pixel_chunks(data))
    plain = inflated.plain()
    if plain is not None:
        shape = image_shape(plain.mode, plain.height, plain.width)
        return Tensor("U8", shape, plain.pixels, plain.mode)
    return _decode_by_pillow(inflated.stored_parts())


def _decode_by_pillow(parts: Sequence[Buffer]) -> Tensor:
    try:
        with Image.open(cast("IO[bytes]", PartsFile(parts)), formats=("PNG",)) as image:
            image.decodermaxblock = _BLOCK_BYTES
            image.load()
            return _pixels_of(image)
    except (MemoryError, OriginDataCorrupt):
        raise
    except Exception as exc:
        # The bytes come from outside: any error of the decoder is their fault.
        raise image_refused("its rows are damaged") from exc


def _pixels_of(image: Image.Image) -> Tensor:
    """Return the pixels in one of the kept modes, converted and copied stripe by stripe."""
    width, height = image.size
    mode = _kept_mode(image)
    row_bytes = width * CHANNELS[mode]
    stripe_rows = max(1, STRIPE_BYTES // row_bytes)
    pixels = np.empty(row_bytes * height, np.uint8)
    for top in range(0, height, stripe_rows):
        stripe = image.crop((0, top, width, min(top + stripe_rows, height)))
        rows = (stripe if stripe.mode == mode else stripe.convert(mode)).tobytes()
        at = top * row_bytes
        pixels[at : at + len(rows)] = np.frombuffer(rows, np.uint8)
    return Tensor("U8", image_shape(mode, height, width), pixels.data, mode)


def encode_png(tensor: Tensor) -> bytes:
    """Return the image as a PNG of its own mode, at COMPRESS_LEVEL."""
    assert tensor.mode in CHANNELS
    assert tensor.dtype == "U8"
    height, width = tensor.shape[:2]
    assert tensor.shape == image_shape(tensor.mode, height, width)
    pixels = np.frombuffer(tensor.data, np.uint8)  # Pillow's type stubs lack memoryview
    image = Image.frombuffer(tensor.mode, (width, height), pixels, "raw", tensor.mode, 0, 1)
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=COMPRESS_LEVEL)
    return out.getvalue()


def _kept_mode(image: Image.Image) -> str:
    if image.mode in CHANNELS:
        return image.mode
    if image.mode == "1":
        return "L"
    assert image.mode == "P"
    return "RGBA" if "transparency" in image.info else "RGB"
