"""Is a PNG whole and within limits, before anything decodes it?

Pillow skips the checksums of pixel data and warns instead of refusing, and a warning
cannot be turned into an error in one thread alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from isal import isal_zlib

from cachesvc.codec.foreign import foreign_image
from cachesvc.codec.refusal import image_refused
from cachesvc.core.tensors import Buffer
from cachesvc_format.foreign import PNG_SIGNATURE

# An 8K frame; real images have 0.8 Mi. Below Pillow's own bomb warning (85 Mi).
MAX_IMAGE_PIXELS = 32 * 1024 * 1024
# Most rows, and most columns: a row costs as much as hundreds of pixels, and decoders hold the
# interpreter for all rows. JPEG has the same limit.
MAX_IMAGE_SIDE = 65_535
# Text, colour profiles, EXIF: all chunks beside header, palette and pixels, as stored.
# Pillow also keeps unknown chunks.
MAX_ANCILLARY_BYTES = 4 * 1024 * 1024
# Each chunk may inflate to Pillow's own limit of 1 MiB.
MAX_ANCILLARY_CHUNKS = 32
# Twice the chunks of the largest image in the smallest common chunks, 8 KiB.
MAX_CHUNKS = 32 * 1024

SIGNATURE = PNG_SIGNATURE
HEADER, PIXELS, END = b"IHDR", b"IDAT", b"IEND"
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">2I5B")
_HEADER_AT = len(SIGNATURE) + _CHUNK.size
# By the header's colour type; a pixel with a palette is one number.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PALETTE = 3
_DEPTHS = (1, 2, 4, 8, 16)
_OF_THE_IMAGE = (HEADER, b"PLTE", PIXELS, END)
# A frame is refused even without `acTL`: if it covers a part of the image, Pillow shows only
# that part, on black.
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


class Chunk(NamedTuple):
    """One chunk of a PNG. `whole` is its body with name, length and checksum."""

    name: bytes
    body: memoryview
    whole: memoryview


class ImageHeader(NamedTuple):
    """The first chunk's values, checked."""

    width: int
    height: int
    depth: int
    colour: int
    has_odd_methods: bool
    is_interlaced: bool

    @property
    def channels(self) -> int:
        return _CHANNELS[self.colour]

    @property
    def has_palette(self) -> bool:
        return self.colour == _PALETTE

    @property
    def kept_channels(self) -> int:
        """Return the least size of a decoded pixel, in bytes."""
        return 3 if self.has_palette else self.channels

    @property
    def rows_bytes(self) -> int:
        """Return the size of the inflated pixels, if they are not interlaced.

        Each row begins with the number of its filter.
        """
        return (1 + (self.width * self.depth * self.channels + 7) // 8) * self.height


def read_header(data: bytes) -> ImageHeader:
    """Return the header. Does not look at the chunks behind it.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED.
    """
    if data[: len(SIGNATURE)] != SIGNATURE:
        raise foreign_image(data)
    if len(data) < _HEADER_AT:
        raise image_refused("it is cut short")
    size_bytes, name = _CHUNK.unpack_from(data, len(SIGNATURE))
    if name != HEADER or size_bytes != _HEADER.size:
        raise image_refused("it has no header")
    if len(data) < _HEADER_AT + _HEADER.size:
        raise image_refused("it is cut short")
    width, height, depth, colour, *odd, interlaced = _HEADER.unpack_from(data, _HEADER_AT)
    if not 0 < width * height <= MAX_IMAGE_PIXELS:
        raise image_refused(f"it has no pixels or more than {MAX_IMAGE_PIXELS}")
    if max(width, height) > MAX_IMAGE_SIDE:
        raise image_refused(f"it has more than {MAX_IMAGE_SIDE} rows or columns")
    if colour not in _CHANNELS or depth not in _DEPTHS:
        raise image_refused("its header names a colour type or a depth that no PNG has")
    return ImageHeader(width, height, depth, colour, any(odd), bool(interlaced))


def checked_chunks(data: bytes) -> list[Chunk]:
    """Return every chunk up to and including IEND.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED, unless all are whole and within limits.
    """
    read_header(data)
    view = memoryview(data)
    chunks: list[Chunk] = []
    at, ancillary_chunks, ancillary_bytes = len(SIGNATURE), 0, 0
    for index in range(MAX_CHUNKS):
        chunk = _read_chunk(view, at)
        name, body, whole = chunk
        if index and name == HEADER:
            # Pillow would use its size, which is not checked.
            raise image_refused("it has a second header")
        chunks.append(chunk)
        if name == END:
            return chunks
        if name not in _OF_THE_IMAGE:
            ancillary_chunks += 1
            ancillary_bytes += len(body)
        if ancillary_chunks > MAX_ANCILLARY_CHUNKS or ancillary_bytes > MAX_ANCILLARY_BYTES:
            raise image_refused("it has too much text or other data beside its pixels")
        at += len(whole)
    raise image_refused(f"it has more than {MAX_CHUNKS} chunks")


def packed_chunk(name: bytes, body: Sequence[Buffer]) -> list[Buffer]:
    """Return the parts of a whole chunk, with length and checksum."""
    checksum = isal_zlib.crc32(name)
    for part in body:
        checksum = isal_zlib.crc32(part, checksum)
    return [_CHUNK.pack(sum(map(len, body)), name), *body, _CRC.pack(checksum)]


def _read_chunk(data: memoryview, at: int) -> Chunk:
    body_at = at + _CHUNK.size
    if body_at > len(data):
        raise image_refused("it is cut short")
    size_bytes, name = _CHUNK.unpack_from(data, at)
    body_end = body_at + size_bytes
    end = body_end + _CRC.size
    if end > len(data):
        raise image_refused("it is cut short")
    if isal_zlib.crc32(data[at + 4 : body_end]) != _CRC.unpack_from(data, body_end)[0]:
        raise image_refused("a chunk has a wrong checksum")
    if name in _ANIMATION:
        raise image_refused("it is animated")
    return Chunk(name, data[body_at:body_end], data[at:end])
