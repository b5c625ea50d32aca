"""How are a PNG's pixels decoded faster than by Pillow, and are they all there?

A photo of 768x1024 takes Pillow 9.8 ms, of which 6.9 are zlib's. ISA-L inflates it in 2.7.
The inflated rows, with their filters, are passed on as a PNG whose pixels are stored instead
of deflated, because no decoder takes rows: kornia-rs decodes that PNG in 0.8 ms, Pillow in 3.
kornia-rs holds the interpreter meanwhile, so it decodes only plain images that are not too
large, and Pillow the others. No decoder inflates: Pillow shows black rows where a stream ends
early without an error.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from isal import isal_zlib
from kornia_rs.io import decode_image_png_u8

from cachesvc.codec.png_chunks import (
    ALPHA,
    END,
    HEADER,
    PALETTE,
    PIXELS,
    SIGNATURE,
    ImageHeader,
    PixelChunks,
    packed_chunk,
)
from cachesvc.codec.refusal import image_refused
from cachesvc.core.buffers import PIECE_BYTES
from cachesvc.core.tensors import Buffer

# kornia-rs holds the interpreter: up to 5 ms for a million pixels of colour, on a busy machine.
MAX_PLAIN_PIXELS = 1024 * 1024
# A row costs kornia-rs more time than a hundred pixels.
MAX_PLAIN_ROWS = 8 * 1024

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
    """A PNG's inflated rows, all of them, and what else decides its pixels."""

    def __init__(self, header: ImageHeader, chunks: PixelChunks, rows: list[bytes]) -> None:
        self._header = header
        self._chunks = chunks
        self._rows = rows

    def plain(self) -> Plain | None:
        """Return the pixels if they are 8 bits deep, and in rows of the modes L, RGB or RGBA."""
        header = self._header
        width, height, mode = header.width, header.height, _PLAIN_MODES.get(header.colour)
        if header.depth != 8 or mode is None or header.is_interlaced:
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
        """Return the parts of a PNG with the same pixels, stored in one chunk, and no more."""
        palette, alpha, _ = self._chunks
        return [
            SIGNATURE,
            *packed_chunk(HEADER, [self._header.packed()]),
            *(packed_chunk(PALETTE, [palette]) if palette is not None else ()),
            *(packed_chunk(ALPHA, [alpha]) if alpha is not None else ()),
            *packed_chunk(PIXELS, _stored(self._rows)),
            *packed_chunk(END, []),
        ]


class _Inflater(Protocol):
    @property
    def unconsumed_tail(self) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: Buffer, max_length: int = ..., /) -> bytes: ...


def inflate(header: ImageHeader, chunks: PixelChunks) -> Inflated:
    """Inflate the rows. What the stream holds behind the last row is not read.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED, if the stream is damaged or holds less than all
            rows.
    """
    try:
        rows = _inflated(isal_zlib.decompressobj, chunks.pixels, header.rows_bytes)
    except isal_zlib.error:  # type: ignore[misc]  # its stub takes the class for an instance
        rows = _inflated_by_zlib(chunks.pixels, header.rows_bytes)
    found_bytes = sum(map(len, rows))
    if found_bytes < header.rows_bytes:
        raise image_refused(
            f"its pixels are cut short: {found_bytes} of {header.rows_bytes} bytes of rows"
        )
    return Inflated(header, chunks, rows)


def _inflated_by_zlib(bodies: Sequence[memoryview], size_bytes: int) -> list[bytes]:
    """Inflate what ISA-L refuses: zlib, which wrote nearly all PNGs, has the last word."""
    try:
        return _inflated(zlib.decompressobj, bodies, size_bytes)
    except zlib.error as exc:
        raise image_refused("its pixels are damaged: their zlib stream is not sound") from exc


def _inflated(
    new: Callable[[], _Inflater], bodies: Sequence[memoryview], size_bytes: int
) -> list[bytes]:
    """Return the first `size_bytes` of an inflated stream in pieces, or all if it holds less.

    The checksum at the stream's end is compared unless the stream is longer, or ends before it.

    Input and output are split into pieces: an inflater copies unread input, moves its output when
    the output grows, and holds the interpreter meanwhile.
    """
    inflater = new()
    rows: list[bytes] = []
    left_bytes = size_bytes
    for piece in _pieces(bodies):
        given: Buffer = piece
        # Ask for one byte more than allowed: a bomb ends there.
        while row := inflater.decompress(given, min(PIECE_BYTES, left_bytes + 1)):
            if len(row) > left_bytes:
                rows.append(row[:left_bytes])
                return rows
            rows.append(row)
            left_bytes -= len(row)
            given = inflater.unconsumed_tail
        if inflater.eof:
            break
    return rows


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
