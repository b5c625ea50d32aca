"""Are the rows of a PNG all there, and is no more of their stream inflated?

Promises 2, 5 and 7.
"""

from __future__ import annotations

import functools
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from isal import isal_zlib
from PIL import Image

from cachesvc.codec import png_pixels
from cachesvc.codec.images import decode_png
from cachesvc.codec.png_chunks import pixel_chunks, read_header
from cachesvc.codec.png_pixels import Inflated, inflate
from tests.support.png_files import (
    END,
    KINDS,
    SEVEN_PASSES,
    SIGNATURE,
    by_pillow,
    chunk,
    picture,
    png,
    read_or_none,
    refusal_of,
    rows,
    saved,
)


def _inflated(data: bytes) -> Inflated:
    return inflate(read_header(data), pixel_chunks(data))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_pixels_inflated_beforehand_are_those_that_pillow_inflates(mode: str, level: int) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (211, 307, 4), np.uint8)
    data = saved(Image.fromarray(noise).convert(mode), compress_level=level)

    inflated = _inflated(data)

    stored = b"".join(inflated.stored_parts())
    pixel_chunks(stored)
    assert by_pillow(stored) == by_pillow(data)
    plain = inflated.plain()
    assert (plain is not None) == (mode in ("L", "RGB", "RGBA"))
    if plain is not None:
        assert bytes(plain.pixels) == by_pillow(data)


def test_a_large_image_does_not_hold_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture("RGB")
    monkeypatch.setattr(png_pixels, "MAX_PLAIN_PIXELS", 5 * 7 - 1)

    inflated = _inflated(saved(image))

    assert inflated.plain() is None
    assert decode_png(saved(image)).data == image.tobytes()


@pytest.mark.parametrize("filter_number", range(6))
def test_a_row_of_every_filter_is_what_pillow_makes_of_it(filter_number: int) -> None:
    noise = np.random.default_rng(7).bytes(3 * 9)
    row = bytes((filter_number,)) + noise
    data = png(2, 8, row * 3, width=9, height=3)

    decoded = read_or_none(data)

    assert (None if decoded is None else bytes(decoded.data)) == by_pillow(data)


@pytest.mark.parametrize("height", [1, 2, 3])
@pytest.mark.parametrize("width", [0xFFFD, 0xFFFE, 0xFFFF])
def test_rows_that_just_fill_stored_blocks_are_whole(width: int, height: int) -> None:
    image = picture("L", width, height)

    assert bytes(decode_png(saved(image)).data) == image.tobytes()


def _grey(*idats: bytes, interlaced: int = 0) -> bytes:
    """Return a PNG of 2 x 1 grey pixels with this pixel data."""
    header = chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 8, 0, 0, 0, interlaced))
    pixels = b"".join(chunk(b"IDAT", idat) for idat in idats)
    return SIGNATURE + header + pixels + END


ROW = zlib.compress(b"\0\x10\x20")
_FLUSHER = zlib.compressobj()
UNFINISHED = _FLUSHER.compress(b"\0\x10\x20") + _FLUSHER.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    "data",
    [
        _grey(zlib.compress(b"\0\x10\0\x20"), interlaced=1),
        _grey(ROW + b"behind the end"),
        _grey(ROW, zlib.compress(b"\0\x30\x40")),
        _grey(ROW, b"behind the end"),
        _grey(zlib.compress(b"\0\x10\x20\0\x30\x40")),
        _grey(zlib.compress(b"\0\x10\x20" + bytes(1 << 26))),
        _grey(ROW[:-1]),
        _grey(ROW[:-4]),
        _grey(UNFINISHED),
    ],
    ids=[
        "interlaced",
        "bytes behind the end",
        "two streams",
        "bytes in a chunk behind the end",
        "too many rows",
        "a bomb",
        "checksum cut short",
        "no checksum",
        "never finished",
    ],
)
def test_a_stream_that_holds_all_rows_is_read_as_pillow_reads_it(data: bytes) -> None:
    assert decode_png(data).data == by_pillow(data) == b"\x10\x20"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_grey(ROW[:-4] + b"\0\0\0\0"), "not sound"),
        (_grey(ROW[:-4], b"\0\0\0\0"), "not sound"),
        (_grey(b"\xff" + ROW[1:]), "not sound"),
        (_grey(b""), "0 of 3 bytes"),
        (_grey(zlib.compress(b"\0\x10")), "2 of 3 bytes"),
        (_grey(), "no pixels"),
    ],
    ids=[
        "wrong checksum",
        "wrong checksum in a chunk of its own",
        "no zlib stream",
        "an empty chunk",
        "too few pixels",
        "no pixels",
    ],
)
def test_a_stream_that_is_not_sound_is_refused(data: bytes, reason: str) -> None:
    assert reason in refusal_of(data)


@pytest.mark.parametrize("interlaced", [0, 1], ids=["rows", "interlaced"])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_a_stream_too_short_by_a_row_or_a_byte_is_refused_whatever_its_pixels_are(
    colour: int, depth: int, interlaced: int
) -> None:
    """Promises 2 and 5. zlib's end is sound, so that Pillow alone shows black rows."""
    all_rows = rows(colour, depth, interlaced=interlaced)
    stream = b"".join(all_rows)
    of_stream = functools.partial(png, colour, depth, interlaced=interlaced)
    whole = of_stream(stream)
    for more in (b"", b"\0", bytes(4096)):
        decoded = decode_png(of_stream(stream + more))
        with Image.open(io.BytesIO(whole)) as image:
            assert bytes(decoded.data) == image.convert(decoded.mode).tobytes()
    for short in (
        stream[:-1],
        b"".join(all_rows[:-1]),
        b"".join(all_rows[: len(all_rows) // 2]),
        b"",
    ):
        message = refusal_of(of_stream(short))
        assert f"{len(short)} of {len(stream)} bytes" in message


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (9, 1), (2, 3), (4, 5), (5, 4), (8, 8), (64, 3)])
def test_interlaced_images_of_few_pixels_are_whole(sides: tuple[int, int]) -> None:
    width, height = sides
    pixels = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    stream = b"".join(
        b"\0" + bytes(row)
        for left, top, step, down in SEVEN_PASSES
        for row in pixels[top::down, left::step]
        if row.size
    )
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 1))
    end = END

    whole = SIGNATURE + header + chunk(b"IDAT", zlib.compress(stream)) + end
    short = SIGNATURE + header + chunk(b"IDAT", zlib.compress(stream[:-1])) + end

    assert bytes(decode_png(whole).data) == pixels.tobytes()
    refusal_of(short)


def test_pixels_with_another_chunk_between_them_end_there() -> None:
    between, end = chunk(b"tEXt", b"k\0v"), END
    first, second = (_grey(part)[: -len(end)] for part in (ROW[:4], ROW))

    # Pillow too refuses what is missing, and ignores what nobody needs.
    assert "of 3 bytes" in refusal_of(first + between + chunk(b"IDAT", ROW[4:]) + end)
    assert decode_png(second + between + chunk(b"IDAT", ROW[4:]) + end).data == b"\x10\x20"


def test_what_isa_l_refuses_is_inflated_by_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise isal_zlib.error

    monkeypatch.setattr(isal_zlib, "decompressobj", refuse)
    image = picture("LA", 400, 300)

    assert decode_png(saved(image)).data == image.tobytes()


def test_pixels_in_many_chunks_are_inflated_as_one_stream() -> None:
    parts = [ROW[at : at + 1] for at in range(len(ROW))]

    assert decode_png(_grey(b"", *parts, b"")).data == b"\x10\x20"


def test_a_bomb_is_not_inflated_beyond_the_image() -> None:
    bomb = _grey(zlib.compress(bytes(1 << 26)))
    tracemalloc.start()
    try:
        read_or_none(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 1 << 22
