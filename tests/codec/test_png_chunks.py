"""Which chunks of a PNG are read, and what may the others hold?

Promises 2, 5 and 7.
"""

from __future__ import annotations

import functools
import io
import struct
import tracemalloc
import zlib

import pytest
from PIL import Image

from cachesvc.codec import png_chunks
from cachesvc.codec.images import decode_png, plan_png
from cachesvc.core.errors import OriginDataCorrupt
from tests.support.png_files import (
    END,
    PALETTE_OF_4,
    SIGNATURE,
    chunk,
    header,
    picture,
    refusal_of,
    saved,
    with_chunks,
)


def _beside(chunks: bytes) -> bytes:
    """Return a good PNG with `chunks` behind its header."""
    return with_chunks(saved(picture("L")), chunks)


@functools.cache
def _bombs() -> dict[str, bytes]:
    zeros = zlib.compress(bytes(64 * 1024 * 1024), 9)
    return {
        "zTXt": b"k\0\0" + zeros,
        "iTXt": b"k\0\1\0\0\0" + zeros,
        "iCCP": b"k\0\0" + zeros,
        "eXIf": b"II*\0" + b"\xff" * 70_000,
        "sPLT": b"k\0" + bytes(70_000),
        "teSt": zeros,
    }


@pytest.mark.parametrize("name", _bombs())
def test_nothing_beside_the_pixels_is_inflated_or_kept(name: str) -> None:
    """Promise 5. 64 of them would be 4 GiB."""
    bombs = chunk(name.encode(), _bombs()[name]) * 64
    data = _beside(bombs)
    tracemalloc.start()
    try:
        decoded = decode_png(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert bytes(decoded.data) == picture("L").tobytes()
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    "broken",
    [(b"zTXt", b"k\0\7x"), (b"iCCP", b""), (b"gAMA", b""), (b"pHYs", b"1"), (b"tRNS", b"")],
)
def test_a_chunk_that_says_nothing_of_the_pixels_may_say_anything(
    broken: tuple[bytes, bytes],
) -> None:
    assert decode_png(_beside(chunk(*broken))).data == picture("L").tobytes()


@pytest.mark.parametrize("count", [33, 75, 20_000])
def test_texts_are_not_counted(count: int) -> None:
    text = chunk(b"tEXt", b"exif:GPSInfo\0v")

    assert decode_png(_beside(text * count)).data == picture("L").tobytes()


def test_megabytes_of_text_are_read_up_to_the_limit_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workflow = chunk(b"tEXt", b"workflow\0" + b"v" * (5 * 1024 * 1024))
    assert decode_png(_beside(workflow * 3)).data == picture("L").tobytes()

    monkeypatch.setattr(png_chunks, "MAX_BESIDE_BYTES", 100)
    most = chunk(b"tEXt", b"k\0" + b"v" * 48)
    assert decode_png(_beside(most * 2)).shape == (5, 7)
    message = refusal_of(_beside(most + chunk(b"AbCD", b"v" * 51)))
    assert "more than 100 bytes" in message
    assert "beside its pixels" in message


def test_too_many_chunks_are_refused() -> None:
    empty = chunk(b"IDAT", b"")

    assert "chunks" in refusal_of(_beside(empty * png_chunks.MAX_CHUNKS))


def test_a_chunk_whose_name_is_no_name_is_refused() -> None:
    for name in (b"\0\0\0\0", b"tE t", b"tEX\xe9", b"tEX1"):
        assert "four letters" in refusal_of(_beside(chunk(name, b"")))


def test_an_animation_is_refused() -> None:
    data = saved(picture("L"), save_all=True, append_images=[picture("L").rotate(180)])

    assert "animated: 2 frames" in refusal_of(data)


ONE_FRAME = chunk(b"acTL", struct.pack(">2I", 1, 0))
WHOLE_FRAME = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 7, 5, 0, 0, 1, 1, 0, 0))
PART_FRAME = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 3, 2, 1, 1, 1, 1, 0, 0))
FRAME_PIXELS = chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(bytes(40)))


@pytest.mark.parametrize(
    "chunks",
    [
        ONE_FRAME + WHOLE_FRAME,
        ONE_FRAME,
        WHOLE_FRAME,
        chunk(b"acTL", struct.pack(">2I", 0, 0)),
    ],
    ids=["announced", "no frame", "not announced", "of none"],
)
def test_an_animation_of_one_frame_is_an_image(chunks: bytes) -> None:
    assert decode_png(_beside(chunks)).data == picture("L").tobytes()


@pytest.mark.parametrize(
    "chunks",
    [
        ONE_FRAME + PART_FRAME,
        PART_FRAME,
        ONE_FRAME + WHOLE_FRAME + WHOLE_FRAME,
        ONE_FRAME + WHOLE_FRAME + FRAME_PIXELS,
        ONE_FRAME + FRAME_PIXELS,
        chunk(b"acTL", struct.pack(">2I", 2, 0)),
        chunk(b"acTL", struct.pack(">2I", 2, 0)) + WHOLE_FRAME,
    ],
    ids=["part", "part, unannounced", "two", "a second image", "hidden", "2 of 0", "2 of 1"],
)
@pytest.mark.parametrize("is_behind", [False, True], ids=["before", "behind"])
def test_an_animation_with_a_second_image_or_a_part_of_one_is_refused(
    chunks: bytes, is_behind: bool
) -> None:
    good, end = saved(picture("L")), END
    data = good[: -len(end)] + chunks + end if is_behind else _beside(chunks)

    assert "animated" in refusal_of(data)


@pytest.mark.parametrize("name", [b"acTL", b"fcTL"])
def test_an_animation_with_a_damaged_header_is_refused(name: bytes) -> None:
    assert "damaged" in refusal_of(_beside(chunk(name, b"1")))


def _of_palette(*chunks: bytes) -> bytes:
    return SIGNATURE + header(4, 1, 2, 3) + b"".join(chunks) + END


def test_an_image_with_a_palette_needs_one_palette_before_its_pixels() -> None:
    pixels = chunk(b"IDAT", zlib.compress(b"\0\x1b"))
    alpha = chunk(b"tRNS", b"\0\1")

    assert decode_png(_of_palette(PALETTE_OF_4, pixels)).data == bytes(range(12))
    assert decode_png(_of_palette(PALETTE_OF_4, alpha, pixels)).mode == "RGBA"
    assert "no palette" in refusal_of(_of_palette(pixels))
    assert "no palette" in refusal_of(_of_palette(pixels, PALETTE_OF_4))
    assert "second" in refusal_of(_of_palette(PALETTE_OF_4, PALETTE_OF_4, pixels))
    assert "second" in refusal_of(_of_palette(PALETTE_OF_4, alpha, alpha, pixels))
    for size_bytes in (0, 2, 3 * 257):
        palette = chunk(b"PLTE", bytes(size_bytes))
        assert "3 per colour" in refusal_of(_of_palette(palette, pixels))
    many = chunk(b"tRNS", bytes(257))
    assert "transparent" in refusal_of(_of_palette(PALETTE_OF_4, many, pixels))


@pytest.mark.parametrize(
    ("colour", "depth", "alpha"),
    [
        (0, 8, b"\0\0"),
        (0, 1, b"\0\0"),
        (2, 8, bytes(6)),
        (2, 16, bytes(6)),
        (4, 8, b""),
        (6, 8, b""),
    ],
)
def test_a_transparent_colour_changes_no_pixel(colour: int, depth: int, alpha: bytes) -> None:
    bits = depth * {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    row = b"\0" + bytes(range((8 * bits + 7) // 8))
    pixels = chunk(b"IDAT", zlib.compress(row))
    ends = chunk(b"tRNS", alpha) + pixels + END
    data = SIGNATURE + header(8, 1, depth, colour) + ends

    decoded = decode_png(data)

    with Image.open(io.BytesIO(data)) as image:
        assert decoded.mode == ("L" if image.mode == "1" else image.mode)
        assert bytes(decoded.data) == image.convert(decoded.mode).tobytes()


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">2I5B", 7, 5, depth, colour, *methods)
        for depth, colour, *methods in [
            (3, 0, 0, 0, 0),
            (4, 2, 0, 0, 0),
            (16, 3, 0, 0, 0),
            (1, 4, 0, 0, 0),
            (2, 6, 0, 0, 0),
            (8, 1, 0, 0, 0),
            (8, 7, 0, 0, 0),
            (8, 0, 1, 0, 0),
            (8, 0, 0, 1, 0),
            (8, 0, 0, 0, 2),
        ]
    ],
)
def test_a_header_that_no_png_has_is_refused(header: bytes) -> None:
    good = saved(picture("L"))

    changed = good[:8] + chunk(b"IHDR", header) + good[33:]
    assert "no PNG has" in refusal_of(changed)
    with pytest.raises(OriginDataCorrupt):
        plan_png(changed)


def test_a_png_whose_first_chunk_is_no_header_is_refused() -> None:
    assert "no header" in refusal_of(SIGNATURE + END)
    assert "Xcode" in refusal_of(SIGNATURE + chunk(b"CgBI", b"\x50\0\x20\6"))


def test_a_second_header_is_refused_whatever_size_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(png_chunks, "MAX_IMAGE_PIXELS", 100)
    pixels = chunk(b"IDAT", zlib.compress(bytes(65 * 48)))
    end = END

    # Pillow uses the last header before the pixels.
    for other in (header(64, 48), header(1, 1)):
        assert "header" in refusal_of(SIGNATURE + header(1, 1) + other + pixels + end)
    assert "header" in refusal_of(_beside(header(7, 5)))
    assert "header" in refusal_of(saved(picture("L"))[:-12] + header(7, 5) + end)
