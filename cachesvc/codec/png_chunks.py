"""Which chunks of a PNG decide its pixels, and is the file whole and within limits?

Only those chunks go on to a decoder: header, palette, the palette's transparency, pixels. Text,
EXIF, profiles and unknown chunks are checked to be whole; nothing inflates or keeps them, so only
their bytes are limited. A transparent colour of an image without a palette is left out too: it
changes no pixel of the modes that are kept.

Pillow skips the checksums of pixel data and warns instead of refusing, and a warning
cannot be turned into an error in one thread alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
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
# All chunks beside header, palette, transparency and pixels, as stored. As much as
# `limits.max_entry_bytes` allows an object by default, so that `put` takes no more.
MAX_BESIDE_BYTES = 64 * 1024 * 1024
# Twice the chunks of the largest image in the smallest common chunks, 8 KiB. A chunk costs some
# microseconds of the interpreter, however small it is.
MAX_CHUNKS = 32 * 1024

SIGNATURE = PNG_SIGNATURE
HEADER, PALETTE, ALPHA, PIXELS, END = b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"
_CHUNK = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_HEADER = struct.Struct(">2I5B")
_HEADER_AT = len(SIGNATURE) + _CHUNK.size
_ANIMATION = struct.Struct(">2I")
_FRAME = struct.Struct(">5I2H2B")

_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6
# By the header's colour type; a pixel with a palette is one number.
_CHANNELS = {_GREY: 1, _COLOUR: 3, _PALETTE: 1, _GREY_ALPHA: 2, _COLOUR_ALPHA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _COLOUR: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _COLOUR_ALPHA: (8, 16),
}
_DEEP = 16
_OTHER_FIRST = {b"CgBI": "Xcode rewrote it for iOS, as no PNG any more (CgBI): store the original"}
_MAX_COLOURS = 256
# Each pass of an interlaced image: its first column and row, and its steps.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


class Chunk(NamedTuple):
    """One chunk of a PNG, without its length and checksum."""

    name: bytes
    body: memoryview


class ImageHeader(NamedTuple):
    """The first chunk's values, checked."""

    width: int
    height: int
    depth: int
    colour: int
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
        if self.depth == _DEEP and self.colour == _GREY_ALPHA:
            return _CHANNELS[_COLOUR_ALPHA]  # what Pillow makes of it
        return 3 if self.has_palette else self.channels

    @property
    def rows_bytes(self) -> int:
        """Return the size of the inflated pixels. Each row begins with the number of its filter."""
        if not self.is_interlaced:
            return self._rows_bytes(self.width, self.height)
        return sum(
            self._rows_bytes(-((left - self.width) // step), -((top - self.height) // down))
            for left, top, step, down in _PASSES
        )

    def packed(self) -> bytes:
        """Return the body of the chunk."""
        return _HEADER.pack(*self[:4], 0, 0, self.is_interlaced)

    def _rows_bytes(self, width: int, height: int) -> int:
        if width <= 0 or height <= 0:
            return 0
        return (1 + (width * self.depth * self.channels + 7) // 8) * height


class PixelChunks(NamedTuple):
    """What decides the pixels. `pixels` are in order; nothing lay between them in the file."""

    palette: memoryview | None
    alpha: memoryview | None
    pixels: list[memoryview]


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
        raise image_refused(_OTHER_FIRST.get(name, "it has no header"))
    if len(data) < _HEADER_AT + _HEADER.size:
        raise image_refused("it is cut short")
    width, height, depth, colour, *methods = _HEADER.unpack_from(data, _HEADER_AT)
    _check_size(width, height)
    if depth not in _DEPTHS.get(colour, ()) or methods[:2] != [0, 0] or methods[2] > 1:
        raise image_refused("its header names a colour type, a depth or a method that no PNG has")
    if depth == _DEEP and colour == _GREY:
        raise image_refused("its mode I;16 has more than 8 bits per channel: save it as 8-bit grey")
    return ImageHeader(width, height, depth, colour, bool(methods[2]))


def _check_size(width: int, height: int) -> None:
    if not width * height:
        raise image_refused("it has no pixels")
    if width * height > MAX_IMAGE_PIXELS:
        raise image_refused(
            f"it has {width} x {height} pixels, more than {MAX_IMAGE_PIXELS}: save it smaller"
        )
    if max(width, height) > MAX_IMAGE_SIDE:
        raise image_refused(
            f"it has {width} x {height} pixels, and so more than {MAX_IMAGE_SIDE} rows or columns: "
            "save it smaller"
        )


def pixel_chunks(data: bytes) -> PixelChunks:
    """Return what decides the pixels of a PNG that is whole and within limits.

    Raises:
        OriginDataCorrupt: reason IMAGE_REFUSED.
    """
    reading = _Reading(read_header(data))
    for chunk in _chunks_of(memoryview(data)):
        reading.take(chunk)
    return PixelChunks(reading.palette, reading.alpha, reading.pixels)


class _Reading:
    """What the chunks so far have said. Every method raises OriginDataCorrupt."""

    def __init__(self, header: ImageHeader) -> None:
        self.palette: memoryview | None = None
        self.alpha: memoryview | None = None
        self.pixels: list[memoryview] = []
        self._header = header
        self._names: set[bytes] = set()
        self._last_name = b""
        self._beside_bytes = 0

    def take(self, chunk: Chunk) -> None:
        take = _TAKERS.get(chunk.name, _Reading._take_other)
        take(self, chunk)
        self._names.add(chunk.name)
        self._last_name = chunk.name

    def _take_header(self, chunk: Chunk) -> None:
        # Pillow would use its size, which is not checked.
        self._refuse_second(chunk)

    def _take_palette(self, chunk: Chunk) -> None:
        self._refuse_second(chunk)
        if self._header.has_palette:
            colours, rest = divmod(len(chunk.body), 3)
            if rest or not 0 < colours <= _MAX_COLOURS:
                raise image_refused(f"its palette has {len(chunk.body)} bytes, not 3 per colour")
            self.palette = chunk.body

    def _take_alpha(self, chunk: Chunk) -> None:
        self._refuse_second(chunk)
        if self._header.has_palette:
            if len(chunk.body) > _MAX_COLOURS:
                raise image_refused("its palette has more transparent colours than a PNG may have")
            self.alpha = chunk.body

    def _take_pixels(self, chunk: Chunk) -> None:
        if self._header.has_palette and self.palette is None:
            raise image_refused("it has no palette before its pixels")
        # Pillow too reads only those that nothing lies between.
        if not self.pixels or self._last_name == PIXELS:
            self.pixels.append(chunk.body)

    def _take_animation(self, chunk: Chunk) -> None:
        if len(chunk.body) != _ANIMATION.size:
            raise image_refused("its animation's header is damaged")
        frames, _ = _ANIMATION.unpack(chunk.body)
        if frames > 1:
            raise image_refused(f"it is animated: {frames} frames; save one of them as a PNG")

    def _take_frame(self, chunk: Chunk) -> None:
        if len(chunk.body) != _FRAME.size:
            raise image_refused("its frame's header is damaged")
        _, width, height, left, top, *_ = _FRAME.unpack(chunk.body)
        # If the frame is a part of the image, Pillow shows only that part, on black.
        is_whole = (width, height, left, top) == (*self._header[:2], 0, 0)
        if chunk.name in self._names or not is_whole:
            raise image_refused("it is animated: a frame is not the whole image; save one as a PNG")

    def _take_frame_pixels(self, chunk: Chunk) -> None:
        raise image_refused("it is animated: it has a second image; save one of them as a PNG")

    def _take_end(self, chunk: Chunk) -> None:
        if not self.pixels:
            raise image_refused("it has no pixels")

    def _take_other(self, chunk: Chunk) -> None:
        self._beside_bytes += len(chunk.body)
        if self._beside_bytes > MAX_BESIDE_BYTES:
            raise image_refused(
                f"it has more than {MAX_BESIDE_BYTES} bytes of text or other data beside its "
                "pixels: save it without them"
            )

    def _refuse_second(self, chunk: Chunk) -> None:
        if chunk.name in self._names:
            raise image_refused(f"it has a second header or palette ({_text(chunk.name)})")


_TAKERS = {
    HEADER: _Reading._take_header,
    PALETTE: _Reading._take_palette,
    ALPHA: _Reading._take_alpha,
    PIXELS: _Reading._take_pixels,
    END: _Reading._take_end,
    b"acTL": _Reading._take_animation,
    b"fcTL": _Reading._take_frame,
    b"fdAT": _Reading._take_frame_pixels,
}


def packed_chunk(name: bytes, body: Sequence[Buffer]) -> list[Buffer]:
    """Return the parts of a whole chunk, with length and checksum."""
    checksum = isal_zlib.crc32(name)
    for part in body:
        checksum = isal_zlib.crc32(part, checksum)
    return [_CHUNK.pack(sum(map(len, body)), name), *body, _CRC.pack(checksum)]


def _chunks_of(data: memoryview) -> Iterator[Chunk]:
    """Yield every chunk up to and including IEND."""
    at = len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        chunk = _read_chunk(data, at)
        yield chunk
        if chunk.name == END:
            return
        at += _CHUNK.size + len(chunk.body) + _CRC.size
    raise image_refused(f"it has more than {MAX_CHUNKS} chunks: save it with fewer")


def _read_chunk(data: memoryview, at: int) -> Chunk:
    body_at = at + _CHUNK.size
    if body_at > len(data):
        raise image_refused("it is cut short")
    size_bytes, name = _CHUNK.unpack_from(data, at)
    body_end = body_at + size_bytes
    if body_end + _CRC.size > len(data):
        raise image_refused("it is cut short")
    if not name.isalpha():  # of ASCII letters
        raise image_refused("a chunk has a name that is not four letters")
    if isal_zlib.crc32(data[at + 4 : body_end]) != _CRC.unpack_from(data, body_end)[0]:
        raise image_refused(f"a chunk ({_text(name)}) has a wrong checksum")
    return Chunk(name, data[body_at:body_end])


def _text(name: bytes) -> str:
    return str(name, "ascii")
