"""How are a PNG's pixels had in less time than Pillow needs?

A photo of 768x1024 takes Pillow 9.8 ms, of which 6.9 are zlib's. ISA-L inflates it in 2.7.
What it gives, the rows with their filters, goes on as a PNG whose pixels are stored instead
of deflated, because no decoder takes rows: kornia-rs makes pixels of it in 0.8 ms, Pillow in
3. kornia-rs holds the interpreter meanwhile, so it is given what is plain and not too large,
and Pillow the rest. What is unusual is left to Pillow as it came: it says what it means.
"""

from __future__ import annotations

import itertools
import operator
import struct
from collections.abc import Sequence
from typing import NamedTuple

from isal import isal_zlib
from kornia_rs.io import decode_image_png_u8

from cachesvc.codec.png_chunks import END, HEADER, PIXELS, SIGNATURE, Chunk, packed_chunk
from cachesvc.core.tensors import Buffer

# The interpreter is held for 1 ms by a million pixels of colour.
MAX_PLAIN_PIXELS = 2 * 1024 * 1024

_HEADER = struct.Struct(">2I5B")
_NAME = operator.attrgetter("name")
# By the header's colour type.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PLAIN_MODES = {0: "L", 2: "RGB", 6: "RGBA"}
_KORNIA_MODES = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}
_ZLIB_HEADER = b"\x78\x01"
_BLOCK = struct.Struct("<BHH")
_MAX_STORED_BYTES = 0xFFFF
_ADLER = struct.Struct(">I")


class Plain(NamedTuple):
    """Pixels, (H, W) or (H, W, C) in C order, and their PIL mode."""

    mode: str
    width: int
    height: int
    pixels: Buffer


class Inflated:
    """A PNG whose pixels were inflated: a sound stream of just its size, not interlaced."""

    def __init__(self, chunks: Sequence[Chunk], rows: bytes) -> None:
        self._chunks = chunks
        self._rows = rows

    def plain(self) -> Plain | None:
        """Return the pixels if they are 8 bits deep, with nothing beside them; else None."""
        width, height, depth, colour, *methods = _HEADER.unpack(self._chunks[0].body)
        mode = _PLAIN_MODES.get(colour)
        has_more = any(chunk.name not in (HEADER, PIXELS, END) for chunk in self._chunks)
        if depth != 8 or mode is None or any(methods) or has_more:
            return None
        if width * height > MAX_PLAIN_PIXELS:
            return None
        try:
            array = decode_image_png_u8(self.stored(), (height, width), _KORNIA_MODES[mode])
        except BaseException as exc:
            # It raises nothing narrower than Exception, and a panic of Rust's is not even that.
            if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
                raise
            return None  # Pillow says what is wrong
        return Plain(mode, width, height, array.reshape(-1).data)

    def stored(self) -> bytes:
        """Return the same PNG with its pixels stored in one chunk."""
        is_pixels = [chunk.name == PIXELS for chunk in self._chunks]
        first, last = is_pixels.index(True), len(is_pixels) - is_pixels[::-1].index(True)
        return b"".join(
            (
                SIGNATURE,
                *(chunk.whole for chunk in self._chunks[:first]),
                *packed_chunk(PIXELS, _stored(self._rows)),
                *(chunk.whole for chunk in self._chunks[last:]),
            )
        )


def inflate(chunks: Sequence[Chunk]) -> Inflated | None:
    """Inflate the pixels; None if they are better left to Pillow as they are.

    That is: interlaced ones, those in chunks with others between them, and a stream that is
    damaged or not of the image's size.
    """
    runs = [list(run) for name, run in itertools.groupby(chunks, _NAME) if name == PIXELS]
    rows_bytes = _rows_bytes(chunks[0])
    if len(runs) != 1 or not rows_bytes:
        return None
    rows = _inflated(b"".join(chunk.body for chunk in runs[0]), rows_bytes)
    return None if rows is None else Inflated(chunks, rows)


def _rows_bytes(header: Chunk) -> int:
    """Return how long the inflated pixels have to be; 0 for an interlaced or an odd image."""
    if header.name != HEADER or len(header.body) != _HEADER.size:
        return 0
    width, height, depth, colour, _, _, interlaced = _HEADER.unpack(header.body)
    bits = width * depth * _CHANNELS.get(colour, 0)
    # Each row begins with the number of its filter.
    return 0 if interlaced or not bits else (1 + (bits + 7) // 8) * height


def _inflated(stream: bytes, size_bytes: int) -> bytes | None:
    """Return the whole of `stream` if it is sound and holds just so much."""
    inflater = isal_zlib.decompressobj()
    try:
        # One more than there may be: a bomb ends there.
        rows: bytes = inflater.decompress(stream, size_bytes + 1)
    except isal_zlib.error:  # type: ignore[misc]  # its stub takes the class for an instance
        return None
    return rows if len(rows) == size_bytes and inflater.eof and not inflater.unused_data else None


def _stored(rows: bytes) -> list[Buffer]:
    """Return `rows` as a zlib stream of stored blocks, in parts.

    zlib writes one at level 0, but most of its 0.7 ms for a photo are for the checksum.
    """
    view = memoryview(rows)
    parts: list[Buffer] = [_ZLIB_HEADER]
    for at in range(0, len(rows), _MAX_STORED_BYTES):
        block = view[at : at + _MAX_STORED_BYTES]
        is_last = at + len(block) == len(rows)
        parts += (_BLOCK.pack(is_last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(_ADLER.pack(isal_zlib.adler32(rows)))
    return parts
