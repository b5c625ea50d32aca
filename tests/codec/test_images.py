"""Do images keep their pixels, and is a damaged image or a bomb told from a good one?

Promises 5 and 7.
"""

from __future__ import annotations

import functools
import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib
from PIL import Image, PngImagePlugin

from cachesvc.codec import images, png_chunks, png_pixels
from cachesvc.codec.images import decode_png, encode_png, plan_png
from cachesvc.codec.png_chunks import pixel_chunks, read_header
from cachesvc.codec.png_pixels import Inflated, inflate
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor
from tests.support import png_files
from tests.support.png_files import KINDS, PALETTE_OF_4, SIGNATURE, chunk


def _image(mode: str, width: int = 7, height: int = 5) -> Image.Image:
    rgba = np.arange(width * height * 4, dtype=np.uint32).reshape(height, width, 4) * 53 % 256
    return Image.fromarray(rgba.astype(np.uint8)).convert(mode)


def _png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", **options)
    return out.getvalue()


def _header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))


def _with_chunks(chunks: bytes) -> bytes:
    """Return a good PNG with `chunks` behind its header."""
    good = _png(_image("L"))
    return good[:33] + chunks + good[33:]


def _inflated(data: bytes) -> Inflated:
    return inflate(read_header(data), pixel_chunks(data))


def _assert_refused(data: bytes) -> str:
    with pytest.raises(OriginDataCorrupt) as raised:
        decode_png(data)
    assert raised.value.reason == "IMAGE_REFUSED"
    return raised.value.message


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("L", (5, 7)), ("LA", (5, 7, 2)), ("RGB", (5, 7, 3)), ("RGBA", (5, 7, 4))],
)
def test_an_image_keeps_its_mode_and_every_pixel(mode: str, shape: tuple[int, ...]) -> None:
    image = _image(mode)

    decoded = decode_png(_png(image))

    assert decoded == Tensor("U8", shape, image.tobytes(), mode)
    assert decode_png(encode_png(decoded)) == decoded
    with Image.open(io.BytesIO(encode_png(decoded))) as reopened:
        assert reopened.mode == mode
        assert reopened.tobytes() == image.tobytes()


def test_pixels_may_be_written_from_any_buffer() -> None:
    decoded = decode_png(_png(_image("RGB")))
    viewed = Tensor("U8", decoded.shape, memoryview(bytes(decoded.data)), "RGB")

    assert encode_png(viewed) == encode_png(decoded)


def test_a_bitmap_becomes_grey() -> None:
    image = _image("1")

    decoded = decode_png(_png(image))

    assert decoded.mode == "L"
    assert bytes(decoded.data) == image.convert("L").tobytes()
    assert set(decoded.data) == {0, 255}


def test_a_palette_becomes_colour() -> None:
    image = _image("RGB").quantize(16)

    decoded = decode_png(_png(image))

    assert decoded == Tensor("U8", (5, 7, 3), image.convert("RGB").tobytes(), "RGB")


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))], ids=["index", "table"])
def test_a_palette_with_transparency_becomes_colour_with_alpha(transparency: int | bytes) -> None:
    data = _png(_image("RGB").quantize(16), transparency=transparency)

    decoded = decode_png(data)

    assert (decoded.mode, decoded.shape) == ("RGBA", (5, 7, 4))
    with Image.open(io.BytesIO(data)) as image:
        assert bytes(decoded.data) == image.convert("RGBA").tobytes()


def test_16_bit_grey_is_refused_by_its_mode() -> None:
    data = _png(Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7)))

    assert "I;16" in _assert_refused(data)
    with pytest.raises(OriginDataCorrupt):
        plan_png(data)


def test_an_orientation_in_the_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    assert decode_png(_png(_image("RGB"), exif=exif)).shape == (5, 7, 3)


@pytest.mark.parametrize("suffix", ["JPEG", "GIF", "BMP", "TIFF"])
def test_another_format_is_refused(suffix: str) -> None:
    out = io.BytesIO()
    _image("L").save(out, format=suffix)

    assert f"it is a {suffix} image" in _assert_refused(out.getvalue())


def test_every_prefix_of_an_image_is_refused() -> None:
    good = _png(_image("RGB"), pnginfo=None)

    for length in range(len(good)):
        _assert_refused(good[:length])


def test_every_flipped_byte_is_noticed() -> None:
    # Pillow alone does not verify the checksum of the chunks that hold pixels.
    good = _png(_image("RGB"))

    for at in range(len(good)):
        _assert_refused(good[:at] + bytes((good[at] ^ 0x10,)) + good[at + 1 :])


def test_an_image_of_too_many_pixels_is_refused_by_its_header_alone() -> None:
    bomb = SIGNATURE + _header(65_536, 1_025) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

    assert "pixels" in _assert_refused(bomb)


@pytest.mark.parametrize("sides", [(1, 65_536), (65_536, 1), (33_554_432, 1), (1, 33_554_432)])
def test_an_image_of_too_many_rows_or_columns_is_refused_by_its_header_alone(
    sides: tuple[int, int],
) -> None:
    tall = SIGNATURE + _header(*sides) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")

    assert "rows or columns" in _assert_refused(tall)
    with pytest.raises(OriginDataCorrupt):
        plan_png(tall)


@pytest.mark.parametrize("sides", [(1, 65_535), (65_535, 1)])
def test_an_image_of_exactly_as_many_rows_or_columns_as_may_be_is_decoded(
    sides: tuple[int, int],
) -> None:
    image = _image("RGB", *sides)

    assert bytes(decode_png(_png(image)).data) == image.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_stripes_put_together_are_the_whole_image(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(images, "STRIPE_BYTES", 100)
    monkeypatch.setattr(png_pixels, "MAX_PLAIN_PIXELS", 0)
    image = _image("RGB", 13, 31).convert(mode)
    kept = image.convert({"1": "L", "P": "RGB"}.get(mode, mode))

    assert bytes(decode_png(_png(image)).data) == kept.tobytes()


def _deep(colour: int, width: int, height: int) -> bytes:
    """Return a PNG with 16 bits per channel."""
    row_bytes = 1 + 2 * width * {2: 3, 4: 2, 6: 4}[colour]
    pixels = chunk(b"IDAT", zlib.compress(bytes(row_bytes * height)))
    return SIGNATURE + _header(width, height, 16, colour) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        *(_png(_image("RGB", 31, 17).convert(mode)) for mode in ("1", "L", "LA", "P", "RGB")),
        *(_deep(colour, 31, 17) for colour in (2, 4, 6)),
    ],
)
def test_the_header_alone_says_how_large_the_pixels_are(data: bytes) -> None:
    assert plan_png(data[:33]).size_bytes == decode_png(data).size_bytes


@pytest.mark.parametrize(
    "data",
    [
        *(_png(_image(mode, 2048, 2048)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(_deep(colour, 1024, 1024) for colour in (2, 4, 6)),
        _png(_image("RGB", 1024, 1024)),
    ],
    ids=["1", "L", "LA", "P", "RGB", "RGBA", "RGB;16", "LA;16", "RGBA;16", "plain"],
)
def test_decoding_takes_no_more_memory_than_the_plan_says(data: bytes) -> None:
    # tracemalloc does not see Pillow's allocations; bench/ measures the whole process.
    tracemalloc.start()
    try:
        decode_png(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < plan_png(data).needed_bytes


def test_an_image_without_pixels_is_refused() -> None:
    assert "pixels" in _assert_refused(SIGNATURE + _header(0, 5) + chunk(b"IEND", b""))


def test_an_image_at_exactly_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_chunks, "MAX_IMAGE_PIXELS", 35)

    assert decode_png(_png(_image("L"))).shape == (5, 7)
    _assert_refused(_png(_image("L", width=9, height=4)))


def test_pixel_data_that_stops_in_the_middle_is_refused() -> None:
    rows = zlib.compress(np.random.default_rng(7).bytes(8 * 5))[:20]
    short = SIGNATURE + _header(7, 5) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")

    _assert_refused(short)


def _by_pillow_alone(data: bytes) -> bytes | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.tobytes()
    except (OSError, SyntaxError):
        return None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_pixels_inflated_beforehand_are_those_that_pillow_inflates(mode: str, level: int) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (211, 307, 4), np.uint8)
    data = _png(Image.fromarray(noise).convert(mode), compress_level=level)

    inflated = _inflated(data)

    stored = b"".join(inflated.stored_parts())
    pixel_chunks(stored)
    assert _by_pillow_alone(stored) == _by_pillow_alone(data)
    plain = inflated.plain()
    assert (plain is not None) == (mode in ("L", "RGB", "RGBA"))
    if plain is not None:
        assert bytes(plain.pixels) == _by_pillow_alone(data)


def test_a_large_image_does_not_hold_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image("RGB")
    monkeypatch.setattr(png_pixels, "MAX_PLAIN_PIXELS", 5 * 7 - 1)

    inflated = _inflated(_png(image))

    assert inflated.plain() is None
    assert decode_png(_png(image)).data == image.tobytes()


def test_a_panic_in_the_fast_decoder_leaves_the_image_to_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> None:
        raise PanicException

    monkeypatch.setattr(png_pixels, "decode_image_png_u8", panic)

    assert decode_png(_png(_image("RGB"))).data == _image("RGB").tobytes()


@pytest.mark.parametrize("filter_number", range(6))
def test_a_row_of_every_filter_is_what_pillow_makes_of_it(filter_number: int) -> None:
    noise = np.random.default_rng(7).bytes(3 * 9)
    row = bytes((filter_number,)) + noise
    header = _header(9, 3, colour=2)
    pixels = chunk(b"IDAT", zlib.compress(row * 3))
    data = SIGNATURE + header + pixels + chunk(b"IEND", b"")

    decoded = _decoded_or_refused(data)

    assert (None if decoded is None else bytes(decoded.data)) == _by_pillow_alone(data)


@pytest.mark.parametrize("height", [1, 2, 3])
@pytest.mark.parametrize("width", [0xFFFD, 0xFFFE, 0xFFFF])
def test_rows_that_just_fill_stored_blocks_are_whole(width: int, height: int) -> None:
    image = _image("L", width, height)

    assert bytes(decode_png(_png(image)).data) == image.tobytes()


def _grey(*idats: bytes, interlaced: int = 0) -> bytes:
    """Return a PNG of 2 x 1 grey pixels with this pixel data."""
    header = chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 8, 0, 0, 0, interlaced))
    pixels = b"".join(chunk(b"IDAT", idat) for idat in idats)
    return SIGNATURE + header + pixels + chunk(b"IEND", b"")


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
    assert decode_png(data).data == _by_pillow_alone(data) == b"\x10\x20"


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
    assert reason in _assert_refused(data)


@pytest.mark.parametrize("interlaced", [0, 1], ids=["rows", "interlaced"])
@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_a_stream_too_short_by_a_row_or_a_byte_is_refused_whatever_its_pixels_are(
    colour: int, depth: int, interlaced: int
) -> None:
    """Promises 2 and 5. zlib's end is sound, so that Pillow alone shows black rows."""
    rows = png_files.rows(colour, depth, interlaced=interlaced)
    stream = b"".join(rows)
    of_stream = functools.partial(png_files.png, colour, depth, interlaced=interlaced)
    whole = of_stream(stream)
    for more in (b"", b"\0", bytes(4096)):
        decoded = decode_png(of_stream(stream + more))
        with Image.open(io.BytesIO(whole)) as image:
            assert bytes(decoded.data) == image.convert(decoded.mode).tobytes()
    for short in (stream[:-1], b"".join(rows[:-1]), b"".join(rows[: len(rows) // 2]), b""):
        message = _assert_refused(of_stream(short))
        assert f"{len(short)} of {len(stream)} bytes" in message


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (9, 1), (2, 3), (4, 5), (5, 4), (8, 8), (64, 3)])
def test_interlaced_images_of_few_pixels_are_whole(sides: tuple[int, int]) -> None:
    width, height = sides
    pixels = np.arange(width * height, dtype=np.uint8).reshape(height, width)
    stream = b"".join(
        b"\0" + bytes(row)
        for left, top, step, down in png_files.SEVEN_PASSES
        for row in pixels[top::down, left::step]
        if row.size
    )
    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 1))
    end = chunk(b"IEND", b"")

    whole = SIGNATURE + header + chunk(b"IDAT", zlib.compress(stream)) + end
    short = SIGNATURE + header + chunk(b"IDAT", zlib.compress(stream[:-1])) + end

    assert bytes(decode_png(whole).data) == pixels.tobytes()
    _assert_refused(short)


def test_pixels_with_another_chunk_between_them_end_there() -> None:
    between, end = chunk(b"tEXt", b"k\0v"), chunk(b"IEND", b"")
    first, second = (_grey(part)[: -len(end)] for part in (ROW[:4], ROW))

    # Pillow too refuses what is missing, and ignores what nobody needs.
    assert "of 3 bytes" in _assert_refused(first + between + chunk(b"IDAT", ROW[4:]) + end)
    assert decode_png(second + between + chunk(b"IDAT", ROW[4:]) + end).data == b"\x10\x20"


def test_what_isa_l_refuses_is_inflated_by_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise isal_zlib.error

    monkeypatch.setattr(isal_zlib, "decompressobj", refuse)
    image = _image("LA", 400, 300)

    assert decode_png(_png(image)).data == image.tobytes()


def test_pixels_in_many_chunks_are_inflated_as_one_stream() -> None:
    parts = [ROW[at : at + 1] for at in range(len(ROW))]

    assert decode_png(_grey(b"", *parts, b"")).data == b"\x10\x20"


def test_a_bomb_is_not_inflated_beyond_the_image() -> None:
    bomb = _grey(zlib.compress(bytes(1 << 26)))
    tracemalloc.start()
    try:
        _decoded_or_refused(bomb)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 1 << 22


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
    data = _with_chunks(bombs)
    tracemalloc.start()
    try:
        decoded = decode_png(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert bytes(decoded.data) == _image("L").tobytes()
    assert peak_bytes < 1 << 20


@pytest.mark.parametrize(
    "broken",
    [(b"zTXt", b"k\0\7x"), (b"iCCP", b""), (b"gAMA", b""), (b"pHYs", b"1"), (b"tRNS", b"")],
)
def test_a_chunk_that_says_nothing_of_the_pixels_may_say_anything(
    broken: tuple[bytes, bytes],
) -> None:
    assert decode_png(_with_chunks(chunk(*broken))).data == _image("L").tobytes()


@pytest.mark.parametrize("count", [33, 75, 20_000])
def test_texts_are_not_counted(count: int) -> None:
    text = chunk(b"tEXt", b"exif:GPSInfo\0v")

    assert decode_png(_with_chunks(text * count)).data == _image("L").tobytes()


def test_megabytes_of_text_are_read_up_to_the_limit_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workflow = chunk(b"tEXt", b"workflow\0" + b"v" * (5 * 1024 * 1024))
    assert decode_png(_with_chunks(workflow * 3)).data == _image("L").tobytes()

    monkeypatch.setattr(png_chunks, "MAX_BESIDE_BYTES", 100)
    most = chunk(b"tEXt", b"k\0" + b"v" * 48)
    assert decode_png(_with_chunks(most * 2)).shape == (5, 7)
    message = _assert_refused(_with_chunks(most + chunk(b"AbCD", b"v" * 51)))
    assert "more than 100 bytes" in message
    assert "beside its pixels" in message


def test_too_many_chunks_are_refused() -> None:
    empty = chunk(b"IDAT", b"")

    assert "chunks" in _assert_refused(_with_chunks(empty * png_chunks.MAX_CHUNKS))


def test_a_chunk_whose_name_is_no_name_is_refused() -> None:
    for name in (b"\0\0\0\0", b"tE t", b"tEX\xe9", b"tEX1"):
        assert "four letters" in _assert_refused(_with_chunks(chunk(name, b"")))


def test_an_animation_is_refused() -> None:
    data = _png(_image("L"), save_all=True, append_images=[_image("L").rotate(180)])

    assert "animated: 2 frames" in _assert_refused(data)


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
    assert decode_png(_with_chunks(chunks)).data == _image("L").tobytes()


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
    good, end = _png(_image("L")), chunk(b"IEND", b"")
    data = good[: -len(end)] + chunks + end if is_behind else _with_chunks(chunks)

    assert "animated" in _assert_refused(data)


@pytest.mark.parametrize("name", [b"acTL", b"fcTL"])
def test_an_animation_with_a_damaged_header_is_refused(name: bytes) -> None:
    assert "damaged" in _assert_refused(_with_chunks(chunk(name, b"1")))


def _of_palette(*chunks: bytes) -> bytes:
    header = _header(4, 1, 2, 3)
    return SIGNATURE + header + b"".join(chunks) + chunk(b"IEND", b"")


def test_an_image_with_a_palette_needs_one_palette_before_its_pixels() -> None:
    pixels = chunk(b"IDAT", zlib.compress(b"\0\x1b"))
    alpha = chunk(b"tRNS", b"\0\1")

    assert decode_png(_of_palette(PALETTE_OF_4, pixels)).data == bytes(range(12))
    assert decode_png(_of_palette(PALETTE_OF_4, alpha, pixels)).mode == "RGBA"
    assert "no palette" in _assert_refused(_of_palette(pixels))
    assert "no palette" in _assert_refused(_of_palette(pixels, PALETTE_OF_4))
    assert "second" in _assert_refused(_of_palette(PALETTE_OF_4, PALETTE_OF_4, pixels))
    assert "second" in _assert_refused(_of_palette(PALETTE_OF_4, alpha, alpha, pixels))
    for size_bytes in (0, 2, 3 * 257):
        palette = chunk(b"PLTE", bytes(size_bytes))
        assert "3 per colour" in _assert_refused(_of_palette(palette, pixels))
    many = chunk(b"tRNS", bytes(257))
    assert "transparent" in _assert_refused(_of_palette(PALETTE_OF_4, many, pixels))


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
    ends = chunk(b"tRNS", alpha) + pixels + chunk(b"IEND", b"")
    data = SIGNATURE + _header(8, 1, depth, colour) + ends

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
    good = _png(_image("L"))

    changed = good[:8] + chunk(b"IHDR", header) + good[33:]
    assert "no PNG has" in _assert_refused(changed)
    with pytest.raises(OriginDataCorrupt):
        plan_png(changed)


def test_a_png_whose_first_chunk_is_no_header_is_refused() -> None:
    assert "no header" in _assert_refused(SIGNATURE + chunk(b"IEND", b""))
    assert "Xcode" in _assert_refused(SIGNATURE + chunk(b"CgBI", b"\x50\0\x20\6"))


def test_a_second_header_is_refused_whatever_size_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(png_chunks, "MAX_IMAGE_PIXELS", 100)
    pixels = chunk(b"IDAT", zlib.compress(bytes(65 * 48)))
    end = chunk(b"IEND", b"")

    # Pillow uses the last header before the pixels.
    for other in (_header(64, 48), _header(1, 1)):
        assert "header" in _assert_refused(SIGNATURE + _header(1, 1) + other + pixels + end)
    assert "header" in _assert_refused(_with_chunks(_header(7, 5)))
    assert "header" in _assert_refused(_png(_image("L"))[:-12] + _header(7, 5) + end)


def test_texts_and_a_profile_of_usual_size_are_no_reason_to_refuse() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a preprocessor")
    info.add_text("Comment", "x" * 1000, zip=True)
    data = _png(_image("RGB"), pnginfo=info, icc_profile=bytes(3000))

    assert decode_png(data).data == _image("RGB").tobytes()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "1"]),
    st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_chunks_with_right_checksums_are_decoded_or_refused(
    mode: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(_png(_image(mode)))
    for at, value in changes:
        data[8 + at % (len(data) - 8)] = value

    changed = _with_right_checksums(bytes(data))
    decoded = _decoded_or_refused(changed)

    assert decoded is None or decoded.size_bytes == len(decoded.data)
    if decoded is not None and decoded.mode in ("L", "RGB", "RGBA") and mode == decoded.mode:
        assert bytes(decoded.data) == _by_pillow_alone(changed)


def _decoded_or_refused(data: bytes) -> Tensor | None:
    try:
        return decode_png(data)
    except OriginDataCorrupt:
        return None


def _with_right_checksums(data: bytes) -> bytes:
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 <= len(out):
            out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)
