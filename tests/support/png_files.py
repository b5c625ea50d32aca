"""PNGs of every colour type and depth, whole or short, written chunk by chunk.

No library writes most of these files, so that a test says what is in each.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cachesvc.codec.images import decode_png
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Colour type and depth of each kind of PNG that is read. 16-bit grey is none.
KINDS = (
    *((0, depth) for depth in (1, 2, 4, 8)),
    *((2, depth) for depth in (8, 16)),
    *((3, depth) for depth in (1, 2, 4, 8)),
    *((colour, depth) for colour in (4, 6) for depth in (8, 16)),
)
# First column and row, and the steps: of plain rows, and of the passes of an interlaced image.
ONE_PASS = ((0, 0, 1, 1),)
SEVEN_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
END_BYTES = 12


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header(
    width: int, height: int, depth: int = 8, colour: int = 0, *methods: int, interlaced: int = 0
) -> bytes:
    compression, filtering = methods or (0, 0)
    numbers = (width, height, depth, colour, compression, filtering, interlaced)
    return chunk(b"IHDR", struct.pack(">2I5B", *numbers))


END = chunk(b"IEND", b"")
PALETTE_OF_4 = chunk(b"PLTE", bytes(range(12)))


def rows(
    colour: int, depth: int, *, width: int = 13, height: int = 11, interlaced: int = 0
) -> list[bytes]:
    """Return the rows of an image of noise, in the order of the stream, each with filter 0."""
    bits = depth * CHANNELS[colour]
    noise = np.random.default_rng(colour + depth)
    return [
        b"\0" + noise.bytes((columns * bits + 7) // 8)
        for left, top, step, down in (SEVEN_PASSES if interlaced else ONE_PASS)
        for columns in [len(range(left, width, step))]
        for _ in range(top, height, down)
        if columns
    ]


def png(
    colour: int,
    depth: int,
    stream: bytes | None = None,
    *,
    width: int = 13,
    height: int = 11,
    interlaced: int = 0,
    before: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """Return a PNG of `stream`, by default of all its rows. `before` its pixels and `behind` them
    are other chunks.
    """
    if stream is None:
        stream = b"".join(rows(colour, depth, width=width, height=height, interlaced=interlaced))
    first = header(width, height, depth, colour, interlaced=interlaced)
    palette = PALETTE_OF_4 if colour == 3 else b""
    pixels = chunk(b"IDAT", zlib.compress(stream))
    return SIGNATURE + first + palette + before + pixels + behind + END


def with_chunks(good: bytes, chunks: bytes, *, is_behind: bool = False) -> bytes:
    """Return a PNG with `chunks` behind its header, or behind its pixels."""
    at = len(good) - END_BYTES if is_behind else len(SIGNATURE) + len(header(1, 1))
    return good[:at] + chunks + good[at:]


def picture(mode: str, width: int = 7, height: int = 5) -> Image.Image:
    rgba = np.arange(width * height * 4, dtype=np.uint32).reshape(height, width, 4) * 53 % 256
    return Image.fromarray(rgba.astype(np.uint8)).convert(mode)


def saved(image: Image.Image, **options: object) -> bytes:
    """Return the image as Pillow writes it."""
    out = io.BytesIO()
    image.save(out, format="PNG", **options)
    return out.getvalue()


def by_pillow(data: bytes) -> bytes | None:
    """Return the pixels that Pillow alone reads, or None if it refuses the file."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.tobytes()
    except (OSError, SyntaxError):
        return None


def refusal_of(data: bytes) -> str:
    """Return the sentence with which the decoder refuses the file."""
    with pytest.raises(OriginDataCorrupt) as raised:
        decode_png(data)
    assert raised.value.reason == "IMAGE_REFUSED"
    return raised.value.message


def read_or_none(data: bytes) -> Tensor | None:
    """Return what the decoder reads, or None if it refuses the file."""
    try:
        return decode_png(data)
    except OriginDataCorrupt:
        return None
