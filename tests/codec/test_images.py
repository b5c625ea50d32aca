"""Do images keep their pixels, and is a damaged image or a bomb told from a good one?

Promises 5 and 7.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cachesvc.codec import images, png_chunks, png_pixels
from cachesvc.codec.images import decode_png, encode_png, plan_png
from cachesvc.codec.png_chunks import checked_chunks, read_header
from cachesvc.codec.png_pixels import Inflated, inflate
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _image(mode: str, width: int = 7, height: int = 5) -> Image.Image:
    rgba = np.arange(width * height * 4, dtype=np.uint32).reshape(height, width, 4) * 53 % 256
    return Image.fromarray(rgba.astype(np.uint8)).convert(mode)


def _png(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", **options)
    return out.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    return _chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))


def _with_chunks(chunks: bytes) -> bytes:
    """Return a good PNG with `chunks` behind its header."""
    good = _png(_image("L"))
    return good[:33] + chunks + good[33:]


def _inflated(data: bytes) -> Inflated | None:
    return inflate(read_header(data), checked_chunks(data))


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


def test_an_orientation_in_the_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    assert decode_png(_png(_image("RGB"), exif=exif)).shape == (5, 7, 3)


@pytest.mark.parametrize("suffix", ["JPEG", "GIF", "BMP", "TIFF"])
def test_another_format_is_refused(suffix: str) -> None:
    out = io.BytesIO()
    _image("L").save(out, format=suffix)

    assert "not a PNG" in _assert_refused(out.getvalue())


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
    bomb = SIGNATURE + _header(65_536, 1_025) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")

    assert "pixels" in _assert_refused(bomb)


@pytest.mark.parametrize("sides", [(1, 65_536), (65_536, 1), (33_554_432, 1), (1, 33_554_432)])
def test_an_image_of_too_many_rows_or_columns_is_refused_by_its_header_alone(
    sides: tuple[int, int],
) -> None:
    tall = SIGNATURE + _header(*sides) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")

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


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_the_header_alone_says_how_large_the_pixels_are(mode: str) -> None:
    data = _png(_image("RGB", 31, 17).convert(mode))

    assert plan_png(data[:33]).size_bytes == decode_png(data).size_bytes


def _deep(colour: int, width: int, height: int) -> bytes:
    """Return a PNG with 16 bits per channel."""
    row_bytes = 1 + 2 * width * {2: 3, 4: 2, 6: 4}[colour]
    pixels = _chunk(b"IDAT", zlib.compress(bytes(row_bytes * height)))
    return SIGNATURE + _header(width, height, 16, colour) + pixels + _chunk(b"IEND", b"")


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
    assert "pixels" in _assert_refused(SIGNATURE + _header(0, 5) + _chunk(b"IEND", b""))


def test_an_image_at_exactly_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_chunks, "MAX_IMAGE_PIXELS", 35)

    assert decode_png(_png(_image("L"))).shape == (5, 7)
    _assert_refused(_png(_image("L", width=9, height=4)))


def test_pixel_data_that_stops_in_the_middle_is_refused() -> None:
    rows = zlib.compress(np.random.default_rng(7).bytes(8 * 5))[:20]
    short = SIGNATURE + _header(7, 5) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")

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

    assert inflated is not None
    stored = b"".join(inflated.stored_parts())
    checked_chunks(stored)
    assert _by_pillow_alone(stored) == _by_pillow_alone(data)
    plain = inflated.plain()
    assert (plain is not None) == (mode in ("L", "RGB", "RGBA"))
    if plain is not None:
        assert bytes(plain.pixels) == _by_pillow_alone(data)


def test_a_large_image_does_not_hold_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image("RGB")
    monkeypatch.setattr(png_pixels, "MAX_PLAIN_PIXELS", 5 * 7 - 1)

    inflated = _inflated(_png(image))

    assert inflated is not None
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
    pixels = _chunk(b"IDAT", zlib.compress(row * 3))
    data = SIGNATURE + header + pixels + _chunk(b"IEND", b"")

    decoded = _decoded_or_refused(data)

    assert (None if decoded is None else bytes(decoded.data)) == _by_pillow_alone(data)


@pytest.mark.parametrize("height", [1, 2, 3])
@pytest.mark.parametrize("width", [0xFFFD, 0xFFFE, 0xFFFF])
def test_rows_that_just_fill_stored_blocks_are_whole(width: int, height: int) -> None:
    image = _image("L", width, height)

    assert bytes(decode_png(_png(image)).data) == image.tobytes()


def _grey(*idats: bytes, interlaced: int = 0) -> bytes:
    """Return a PNG of 2 x 1 grey pixels with this pixel data."""
    header = _chunk(b"IHDR", struct.pack(">2I5B", 2, 1, 8, 0, 0, 0, interlaced))
    pixels = b"".join(_chunk(b"IDAT", idat) for idat in idats)
    return SIGNATURE + header + pixels + _chunk(b"IEND", b"")


ROW = zlib.compress(b"\0\x10\x20")


@pytest.mark.parametrize(
    "data",
    [
        _grey(zlib.compress(b"\0\x10\0\x20"), interlaced=1),
        _grey(ROW + b"behind the end"),
        _grey(ROW, zlib.compress(b"\0\x30\x40")),
        _grey(zlib.compress(b"\0\x10\x20\0\x30\x40")),
        _grey(zlib.compress(bytes(1 << 26))),
        _grey(ROW[:-1]),
        _grey(ROW[:-4] + b"\0\0\0\0"),
        _grey(zlib.compress(b"\0\x10")),
        _grey(b"\xff" + ROW[1:]),
        _grey(b""),
        _grey(),
    ],
    ids=[
        "interlaced",
        "bytes behind the end",
        "two streams",
        "too many rows",
        "a bomb",
        "checksum cut short",
        "wrong checksum",
        "too few pixels",
        "no zlib stream",
        "an empty chunk",
        "no pixels",
    ],
)
def test_unusual_pixel_data_is_left_to_pillow_as_it_came(data: bytes) -> None:
    decoded = _decoded_or_refused(data)

    assert _inflated(data) is None
    assert (None if decoded is None else decoded.data) == _by_pillow_alone(data)


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


def test_a_text_that_inflates_to_megabytes_is_refused() -> None:
    bomb = _chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(64 * 1024 * 1024)))

    assert "Pillow cannot decode" in _assert_refused(_with_chunks(bomb))


def test_too_many_texts_are_refused() -> None:
    limit = png_chunks.MAX_ANCILLARY_CHUNKS
    text = _chunk(b"tEXt", b"k\x00v")

    assert decode_png(_with_chunks(text * limit)).shape == (5, 7)
    assert "beside its pixels" in _assert_refused(_with_chunks(text * (limit + 1)))


def test_too_long_a_text_is_refused() -> None:
    text = _chunk(b"tEXt", b"k\x00" + b"v" * png_chunks.MAX_ANCILLARY_BYTES)

    assert "beside its pixels" in _assert_refused(_with_chunks(text))


def test_too_many_chunks_are_refused() -> None:
    empty = _chunk(b"IDAT", b"")

    assert "chunks" in _assert_refused(_with_chunks(empty * png_chunks.MAX_CHUNKS))


def test_an_animation_is_refused() -> None:
    data = _png(_image("L"), save_all=True, append_images=[_image("L").rotate(180)])

    assert "animated" in _assert_refused(data)


def test_a_png_whose_first_chunk_is_no_header_is_refused() -> None:
    assert "no header" in _assert_refused(SIGNATURE + _chunk(b"IEND", b""))


def test_a_second_header_is_refused_whatever_size_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(png_chunks, "MAX_IMAGE_PIXELS", 100)
    pixels = _chunk(b"IDAT", zlib.compress(bytes(65 * 48)))
    end = _chunk(b"IEND", b"")

    # Pillow uses the last header before the pixels.
    for other in (_header(64, 48), _header(1, 1)):
        assert "header" in _assert_refused(SIGNATURE + _header(1, 1) + other + pixels + end)
    assert "header" in _assert_refused(_with_chunks(_header(7, 5)))
    assert "header" in _assert_refused(_png(_image("L"))[:-12] + _header(7, 5) + end)


def test_a_frame_of_an_animation_that_is_not_announced_is_refused() -> None:
    rows = zlib.compress((b"\0" + b"\xaa" * 3) * 2)
    part = _chunk(b"fcTL", struct.pack(">5I2H2B", 0, 3, 2, 1, 1, 1, 1, 0, 0))
    pixels = _chunk(b"fdAT", struct.pack(">I", 0) + rows)
    end = _chunk(b"IEND", b"")

    # Pillow decodes these 3 x 2 pixels, and leaves the rest black.
    assert "animated" in _assert_refused(
        SIGNATURE + _header(7, 5) + part + _chunk(b"IDAT", rows) + end
    )
    assert "animated" in _assert_refused(SIGNATURE + _header(3, 2) + pixels + end)


def test_chunks_that_no_reader_knows_count_beside_the_pixels_whatever_their_name() -> None:
    unknown = _chunk(b"AbCD", b"x")

    assert decode_png(_with_chunks(unknown)).shape == (5, 7)
    too_many = unknown * (png_chunks.MAX_ANCILLARY_CHUNKS + 1)
    assert "beside its pixels" in _assert_refused(_with_chunks(too_many))


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
