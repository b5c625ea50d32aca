"""How are a PNG's pixels decoded faster than by Pillow?

A photo of 768x1024 takes Pillow 9.8 ms, of which 6.9 are zlib's. ISA-L inflates it in 2.7.
The inflated rows, with their filters, are passed on as a PNG whose pixels are stored instead
of deflated, because no decoder takes rows: kornia-rs decodes that PNG in 0.8 ms, Pillow in 3.
kornia-rs holds the interpreter meanwhile, so it decodes only plain images that are not too
large, and Pillow the others. Pillow gets an unusual file unchanged and decides what it means.
"""

from __future__ import annotations

import itertools
import operator
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from isal import igzip_lib, isal_zlib
from kornia_rs.io import decode_image_png_u8

from cachesvc.codec.png_chunks import (
    END,
    HEADER,
    PIXELS,
    SIGNATURE,
    Chunk,
    ImageHeader,
    packed_chunk,
)
from cachesvc.core.buffers import PIECE_BYTES
from cachesvc.core.tensors import Buffer

# kornia-rs holds the interpreter: up to 5 ms for a million pixels of colour, on a busy machine.
MAX_PLAIN_PIXELS = 1024 * 1024
# A row costs kornia-rs more time than a hundred pixels.
MAX_PLAIN_ROWS = 8 * 1024

_NAME = operator.attrgetter("name")
_PLAIN_MODES = {0: "L", 2: "RGB", 6: "RGBA"}
_KORNIA_MODES = {"L": "mono", "RGB": "rgb", "RGBA": "rgba"}
_ZLIB_HEADER = b"\x78\x01"
_BLOCK = struct.Struct("<BHH")
_MAX_STORED_BYTES = 0xFFFF
_LAST_BLOCK = _BLOCK.pack(1, 0, 0xFFFF)
_ADLER = struct.Struct(">I")


class Plain(NamedTuple):
    """Pixels, (H, W) or (H, W, C) in C order, and their PIL mode."""

    mode: str
    width: int
    height: int
    pixels: Buffer


class Inflated:
    """A PNG with inflated pixels: its stream is sound and of the right size, not interlaced."""

    def __init__(self, header: ImageHeader, chunks: Sequence[Chunk], rows: list[bytes]) -> None:
        self._header = header
        self._chunks = chunks
        self._rows = rows

    def plain(self) -> Plain | None:
        """Return the pixels if they are 8 bits deep and the only data, otherwise None."""
        header = self._header
        width, height, mode = header.width, header.height, _PLAIN_MODES.get(header.colour)
        has_more = any(chunk.name not in (HEADER, PIXELS, END) for chunk in self._chunks)
        if header.depth != 8 or mode is None or header.has_odd_methods or has_more:
            return None
        if width * height > MAX_PLAIN_PIXELS or height > MAX_PLAIN_ROWS:
            return None
        try:
            stored = b"".join(self.stored_parts())
            array = decode_image_png_u8(stored, (height, width), _KORNIA_MODES[mode])
        except BaseException as exc:
            # kornia-rs raises a plain Exception; a panic in Rust is only a BaseException.
            if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
                raise
            return None  # Pillow then says what is wrong
        return Plain(mode, width, height, array.reshape(-1).data)

    def stored_parts(self) -> list[Buffer]:
        """Return the parts of the same PNG with its pixels stored in one chunk."""
        is_pixels = [chunk.name == PIXELS for chunk in self._chunks]
        first, last = is_pixels.index(True), len(is_pixels) - is_pixels[::-1].index(True)
        return [
            SIGNATURE,
            *(chunk.whole for chunk in self._chunks[:first]),
            *packed_chunk(PIXELS, _stored(self._rows)),
            *(chunk.whole for chunk in self._chunks[last:]),
        ]


def inflate(header: ImageHeader, chunks: Sequence[Chunk]) -> Inflated | None:
    """Inflate the pixels; return None if Pillow should get the file unchanged.

    That is: the pixels are interlaced, or other chunks lie between theirs, or their stream is
    damaged or not of the image's size.
    """
    runs = [list(run) for name, run in itertools.groupby(chunks, _NAME) if name == PIXELS]
    if len(runs) != 1 or header.is_interlaced:
        return None
    rows = _inflated([chunk.body for chunk in runs[0]], header.rows_bytes)
    return None if rows is None else Inflated(header, chunks, rows)


def _inflated(bodies: Sequence[memoryview], size_bytes: int) -> list[bytes] | None:
    """Return an inflated stream in pieces; None unless it is sound and has `size_bytes`.

    Input and output are split into pieces: ISA-L copies unread input, moves its output when the
    output grows, and holds the interpreter meanwhile.
    """
    inflater = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB)
    rows: list[bytes] = []
    left_bytes = size_bytes
    try:
        for given in _pieces(bodies):
            if inflater.eof:
                return None  # bytes behind the end
            # Ask for one byte more than allowed: a bomb ends there.
            while row := inflater.decompress(given, min(PIECE_BYTES, left_bytes + 1)):
                rows.append(row)
                left_bytes -= len(row)
                if left_bytes < 0:
                    return None
                if inflater.needs_input or inflater.eof:
                    break
                given = memoryview(b"")
    except igzip_lib.error:  # type: ignore[misc]  # its stub takes the class for an instance
        return None
    return rows if not left_bytes and inflater.eof and not inflater.unused_data else None


def _pieces(bodies: Sequence[memoryview]) -> Iterator[memoryview]:
    for body in bodies:
        for at in range(0, len(body), PIECE_BYTES):
            yield body[at : at + PIECE_BYTES]


def _stored(rows: Sequence[bytes]) -> list[Buffer]:
    """Return `rows` as a zlib stream of stored blocks, in parts.

    zlib writes such a stream at level 0, but most of its 0.7 ms for a photo are its checksum's.
    """
    parts: list[Buffer] = [_ZLIB_HEADER]
    checksum = 1
    for row in rows:
        view = memoryview(row)
        checksum = isal_zlib.adler32(row, checksum)
        for at in range(0, len(row), _MAX_STORED_BYTES):
            block = view[at : at + _MAX_STORED_BYTES]
            parts += (_BLOCK.pack(0, len(block), len(block) ^ 0xFFFF), block)
    parts.append(_LAST_BLOCK)
    parts.append(_ADLER.pack(checksum))
    return parts
