"""Do images keep their pixels, and is a damaged image told from a good one?

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
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor
from tests.support.png_files import (
    END,
    SIGNATURE,
    by_pillow,
    chunk,
    header,
    picture,
    read_or_none,
    refusal_of,
    saved,
)


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("L", (5, 7)), ("LA", (5, 7, 2)), ("RGB", (5, 7, 3)), ("RGBA", (5, 7, 4))],
)
def test_an_image_keeps_its_mode_and_every_pixel(mode: str, shape: tuple[int, ...]) -> None:
    image = picture(mode)

    decoded = decode_png(saved(image))

    assert decoded == Tensor("U8", shape, image.tobytes(), mode)
    assert decode_png(encode_png(decoded)) == decoded
    with Image.open(io.BytesIO(encode_png(decoded))) as reopened:
        assert reopened.mode == mode
        assert reopened.tobytes() == image.tobytes()


def test_pixels_may_be_written_from_any_buffer() -> None:
    decoded = decode_png(saved(picture("RGB")))
    viewed = Tensor("U8", decoded.shape, memoryview(bytes(decoded.data)), "RGB")

    assert encode_png(viewed) == encode_png(decoded)


def test_a_bitmap_becomes_grey() -> None:
    image = picture("1")

    decoded = decode_png(saved(image))

    assert decoded.mode == "L"
    assert bytes(decoded.data) == image.convert("L").tobytes()
    assert set(decoded.data) == {0, 255}


def test_a_palette_becomes_colour() -> None:
    image = picture("RGB").quantize(16)

    decoded = decode_png(saved(image))

    assert decoded == Tensor("U8", (5, 7, 3), image.convert("RGB").tobytes(), "RGB")


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))], ids=["index", "table"])
def test_a_palette_with_transparency_becomes_colour_with_alpha(transparency: int | bytes) -> None:
    data = saved(picture("RGB").quantize(16), transparency=transparency)

    decoded = decode_png(data)

    assert (decoded.mode, decoded.shape) == ("RGBA", (5, 7, 4))
    with Image.open(io.BytesIO(data)) as image:
        assert bytes(decoded.data) == image.convert("RGBA").tobytes()


def test_16_bit_grey_is_refused_by_its_mode() -> None:
    data = saved(Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7)))

    assert "I;16" in refusal_of(data)
    with pytest.raises(OriginDataCorrupt):
        plan_png(data)


def test_an_orientation_in_the_exif_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6

    assert decode_png(saved(picture("RGB"), exif=exif)).shape == (5, 7, 3)


@pytest.mark.parametrize("suffix", ["JPEG", "GIF", "BMP", "TIFF"])
def test_another_format_is_refused(suffix: str) -> None:
    out = io.BytesIO()
    picture("L").save(out, format=suffix)

    assert f"it is a {suffix} image" in refusal_of(out.getvalue())


def test_every_prefix_of_an_image_is_refused() -> None:
    good = saved(picture("RGB"), pnginfo=None)

    for length in range(len(good)):
        refusal_of(good[:length])


def test_every_flipped_byte_is_noticed() -> None:
    # Pillow alone does not verify the checksum of the chunks that hold pixels.
    good = saved(picture("RGB"))

    for at in range(len(good)):
        refusal_of(good[:at] + bytes((good[at] ^ 0x10,)) + good[at + 1 :])


def test_an_image_of_too_many_pixels_is_refused_by_its_header_alone() -> None:
    bomb = SIGNATURE + header(65_536, 1_025) + chunk(b"IDAT", b"") + END

    assert "pixels" in refusal_of(bomb)


@pytest.mark.parametrize("sides", [(1, 65_536), (65_536, 1), (33_554_432, 1), (1, 33_554_432)])
def test_an_image_of_too_many_rows_or_columns_is_refused_by_its_header_alone(
    sides: tuple[int, int],
) -> None:
    tall = SIGNATURE + header(*sides) + chunk(b"IDAT", b"") + END

    assert "rows or columns" in refusal_of(tall)
    with pytest.raises(OriginDataCorrupt):
        plan_png(tall)


@pytest.mark.parametrize("sides", [(1, 65_535), (65_535, 1)])
def test_an_image_of_exactly_as_many_rows_or_columns_as_may_be_is_decoded(
    sides: tuple[int, int],
) -> None:
    image = picture("RGB", *sides)

    assert bytes(decode_png(saved(image)).data) == image.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_stripes_put_together_are_the_whole_image(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(images, "STRIPE_BYTES", 100)
    monkeypatch.setattr(png_pixels, "MAX_PLAIN_PIXELS", 0)
    image = picture("RGB", 13, 31).convert(mode)
    kept = image.convert({"1": "L", "P": "RGB"}.get(mode, mode))

    assert bytes(decode_png(saved(image)).data) == kept.tobytes()


def _deep(colour: int, width: int, height: int) -> bytes:
    """Return a PNG with 16 bits per channel."""
    row_bytes = 1 + 2 * width * {2: 3, 4: 2, 6: 4}[colour]
    pixels = chunk(b"IDAT", zlib.compress(bytes(row_bytes * height)))
    return SIGNATURE + header(width, height, 16, colour) + pixels + END


@pytest.mark.parametrize(
    "data",
    [
        *(saved(picture("RGB", 31, 17).convert(mode)) for mode in ("1", "L", "LA", "P", "RGB")),
        *(_deep(colour, 31, 17) for colour in (2, 4, 6)),
    ],
)
def test_the_header_alone_says_how_large_the_pixels_are(data: bytes) -> None:
    assert plan_png(data[:33]).size_bytes == decode_png(data).size_bytes


@pytest.mark.parametrize(
    "data",
    [
        *(saved(picture(mode, 2048, 2048)) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(_deep(colour, 1024, 1024) for colour in (2, 4, 6)),
        saved(picture("RGB", 1024, 1024)),
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
    assert "pixels" in refusal_of(SIGNATURE + header(0, 5) + END)


def test_an_image_at_exactly_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_chunks, "MAX_IMAGE_PIXELS", 35)

    assert decode_png(saved(picture("L"))).shape == (5, 7)
    refusal_of(saved(picture("L", width=9, height=4)))


def test_pixel_data_that_stops_in_the_middle_is_refused() -> None:
    rows = zlib.compress(np.random.default_rng(7).bytes(8 * 5))[:20]
    short = SIGNATURE + header(7, 5) + chunk(b"IDAT", rows) + END

    refusal_of(short)


def test_a_panic_in_the_fast_decoder_leaves_the_image_to_pillow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> None:
        raise PanicException

    monkeypatch.setattr(png_pixels, "decode_image_png_u8", panic)

    assert decode_png(saved(picture("RGB"))).data == picture("RGB").tobytes()


def test_texts_and_a_profile_of_usual_size_are_no_reason_to_refuse() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "a preprocessor")
    info.add_text("Comment", "x" * 1000, zip=True)
    data = saved(picture("RGB"), pnginfo=info, icc_profile=bytes(3000))

    assert decode_png(data).data == picture("RGB").tobytes()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["L", "LA", "RGB", "RGBA", "P", "1"]),
    st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_changed_chunks_with_right_checksums_areread_or_none(
    mode: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(saved(picture(mode)))
    for at, value in changes:
        data[8 + at % (len(data) - 8)] = value

    changed = _with_right_checksums(bytes(data))
    decoded = read_or_none(changed)

    assert decoded is None or decoded.size_bytes == len(decoded.data)
    if decoded is not None and decoded.mode in ("L", "RGB", "RGBA") and mode == decoded.mode:
        assert bytes(decoded.data) == by_pillow(changed)


def _with_right_checksums(data: bytes) -> bytes:
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 <= len(out):
            out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)
