"""Which pixels are in a PNG object, and how are pixels written back as one?

The file's own structure is checked first (png_chunks.py). What is plain is decoded by faster
libraries (png_pixels.py), and the rest by Pillow.

Modes L, LA, RGB and RGBA are kept as they are; 1 becomes L, P becomes RGB, or
RGBA where it has transparency. Modes of more than 8 bits per channel are refused,
except that Pillow itself reads 16-bit colour as 8-bit, as V2 did. EXIF
orientation is not applied, as in V2.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from cachesvc.codec.png_chunks import checked_chunks
from cachesvc.codec.png_pixels import inflate
from cachesvc.codec.refusal import clipped, image_refused
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.tensors import Tensor

# An RGB photo of 768x1024 at level 1 is 15 % larger than at 6, Pillow's default, and
# written in 58 ms instead of 144; `optimize`, as V2 had it, took 0.8 s for one person.
COMPRESS_LEVEL = 1

MODE_CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


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
    inflated = inflate(checked_chunks(data))
    plain = None if inflated is None else inflated.plain()
    if plain is not None:
        shape = image_shape(plain.mode, plain.height, plain.width)
        return Tensor("U8", shape, plain.pixels, plain.mode)
    return _decode_by_pillow(data if inflated is None else inflated.stored())


def _decode_by_pillow(data: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            # At once: after each block it would wait for the interpreter, behind the loop.
            image.decodermaxblock = len(data)
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
