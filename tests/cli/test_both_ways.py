"""Is a file read by `cachesvc put` as it is read at the origin?

Each file of the table is read by the code of both ways: the pixels or numbers are the same, or
both refuse it with the same sentence. Some files of the table go both ways through a daemon; what
was served is also written by `get --output`, put with `--persist`, and read from the origin.

Promises 2 and 5. A way that takes what the other refuses keeps an entry that no fill can renew.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cachesvc.cli.commands import field_files
from cachesvc.codec import members
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc.core.kinds import GARMENT
from cachesvc_client import CacheClient, Entry
from cachesvc_client._values import fields_of
from cachesvc_format.blob import Tensor
from tests.cli.conftest import Run
from tests.support import png_files, sample_objects
from tests.support.daemons import Daemon
from tests.support.png_files import KINDS, chunk, png, with_chunks
from tests.support.sample_objects import fresh_id

OWNER = "both-ways"
# By the field: what its object is called at the origin, and how a file of it ends.
IMAGE, TENSOR = "garm_img", "garm_tensor"
OBJECT = {IMAGE: "img.png", TENSOR: "tensor.pkl"}


@dataclass(frozen=True)
class File:
    """One file, and what both ways have to make of it.

    `refused` is a part of the sentence. `plain` has the same pixels, if Pillow refuses `data`.
    """

    data: bytes
    refused: str = ""
    plain: bytes = b""
    field: str = IMAGE
    suffix: str = ".png"


def _picture(mode: str, size: tuple[int, int] = (13, 11)) -> Image.Image:
    return sample_objects.image("RGB", (16, 16), 3).resize(size).convert(mode)


def _saved(image: Image.Image, suffix: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, suffix, **options)
    return out.getvalue()


def _of_every_kind() -> Iterator[tuple[str, File]]:
    for colour, depth in KINDS:
        for interlaced in (0, 1):
            rows = png_files.rows(colour, depth, interlaced=interlaced)
            name = f"colour {colour} of {depth} bits{', interlaced' * interlaced}"
            yield name, File(png(colour, depth, interlaced=interlaced))
            long = b"".join([*rows, b"more"])
            yield f"{name}, too long", File(png(colour, depth, long, interlaced=interlaced))
            short = b"".join(rows)[:-1]
            short_png = png(colour, depth, short, interlaced=interlaced)
            yield f"{name}, too short", File(short_png, "cut short")


def _with_transparency() -> Iterator[tuple[str, File]]:
    for colour, depth in KINDS:
        alpha = chunk(b"tRNS", {0: b"\0\1", 2: b"\0\1" * 3, 3: b"\0\x80"}.get(colour, b""))
        yield f"colour {colour} of {depth} bits, tRNS", File(png(colour, depth, before=alpha))


def _with_other_chunks() -> Iterator[tuple[str, File]]:
    good = _saved(_picture("RGB"))
    text = chunk(b"tEXt", b"exif:Model\0a camera")
    yield "75 texts", File(with_chunks(good, text * 75))
    yield "5 MiB of text", File(with_chunks(good, chunk(b"tEXt", b"workflow\0" + bytes(5 << 20))))
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 << 20)))
    yield "64 texts that inflate to 8 MiB each", File(with_chunks(good, bomb * 64), plain=good)
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2 << 20)))
    yield "a profile of 2 MiB", File(with_chunks(good, profile), plain=good)
    yield "a damaged profile", File(with_chunks(good, chunk(b"iCCP", b"k\0\7x")), plain=good)
    yield (
        "EXIF behind the pixels",
        File(with_chunks(good, chunk(b"eXIf", b"II*\0" + bytes(70_000)), is_behind=True)),
    )
    yield "40,000 chunks", File(with_chunks(good, text * 40_000), "32768 chunks")


def _animated() -> Iterator[tuple[str, File]]:
    frames = {"save_all": True, "append_images": [_picture("RGB").rotate(90)]}
    yield "an animation", File(_saved(_picture("RGB"), **frames), "animated: 2 frames")
    one = chunk(b"acTL", struct.pack(">2I", 1, 0))
    frame = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 13, 11, 0, 0, 1, 1, 0, 0))
    yield "an animation of one frame", File(with_chunks(_saved(_picture("RGB")), one + frame))


def _others() -> Iterator[tuple[str, File]]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield f"mode {mode}", File(_saved(_picture(mode)))
    deep = Image.fromarray(np.arange(143, dtype=np.uint16).reshape(11, 13))
    yield "mode I;16", File(_saved(deep), "I;16")
    good = _saved(_picture("RGB"))
    yield "a prefix", File(good[:-20], "cut short")
    yield "a flipped bit", File(good[:-30] + bytes((good[-30] ^ 1,)) + good[-29:], "checksum")
    yield (
        "no palette",
        File(png(3, 8).replace(png_files.PALETTE_OF_4, b""), "no palette before its pixels"),
    )
    yield "too many pixels", File(png(0, 8, b"", width=65_535, height=1_024), "more than 33554432")
    yield "too many rows", File(png(0, 8, b"", width=1, height=65_536), "rows or columns")
    for suffix in ("JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        yield suffix, File(_saved(_picture("RGB"), suffix), "this field reads PNG")
    yield "text", File(b"no image", "it is text, and this field reads PNG")
    yield "no bytes that anybody knows", File(bytes(range(200, 250)), "no PNG")


FILES: dict[str, File] = dict(
    file
    for files in (_of_every_kind, _with_transparency, _with_other_chunks, _animated, _others)
    for file in files()
)


class BothWays:
    """The other field of each garment is a good one."""

    def __init__(self, run: Run, daemon: Daemon, folder: Path) -> None:
        self._run = run
        self._origin = daemon.origin_dir / "users" / OWNER / "vton-cache/garments"
        self._client = CacheClient(daemon.target)
        self._folder = folder
        self._good = sample_objects.garment("any", OWNER)
        self._origin.mkdir(parents=True, exist_ok=True)
        self._put_files = self._files_of_good()

    def close(self) -> None:
        self._client.close()

    def by_origin(self, file: File) -> Entry | str:
        """Return the entry that a fill makes of the file, or the sentence of its refusal."""
        clothing = fresh_id("g")
        objects = {field: self._origin / f"{clothing}_{name}" for field, name in OBJECT.items()}
        for key, data in self._good.objects.items():
            (self._origin / key.rpartition("/")[2].replace("any", clothing)).write_bytes(data)
        objects[file.field].write_bytes(file.data)
        done = self._run("get", "garment", clothing, "--owner", OWNER)
        return self._entry(clothing) if done.exit_code == 0 else _sentence(done.stderr)

    def by_put(self, file: File) -> Entry | str:
        """Return the entry that `cachesvc put` makes of the file, or the sentence."""
        clothing = fresh_id("g")
        path = self._folder / f"{file.field}{file.suffix}"
        path.write_bytes(file.data)
        return self._put(clothing, {**self._put_files, file.field: path})

    def again(self, entry: Entry) -> Entry:
        """Return what `put --persist` of the files of `get --output` leaves at the origin."""
        clothing, written = fresh_id("g"), self._folder / fresh_id("out")
        done = self._run("get", "garment", entry.info.key.id, "--output", str(written))
        assert done.exit_code == 0, done.output
        files = {IMAGE: written / "garm_img.png", TENSOR: self._put_files[TENSOR]}
        put = self._put(clothing, files, "--owner", OWNER, "--persist")
        assert isinstance(put, Entry), put
        assert self._run("invalidate", "--clothing", clothing).exit_code == 0
        done = self._run("get", "garment", clothing, "--owner", OWNER)
        assert done.exit_code == 0, done.output
        return self._entry(clothing)

    def _put(self, clothing: str, files: dict[str, Path], *options: str) -> Entry | str:
        named = [f"{field}={path}" for field, path in files.items()]
        done = self._run("put", "garment", clothing, *named, *options)
        return self._entry(clothing) if done.exit_code == 0 else _sentence(done.stderr)

    def _entry(self, clothing: str) -> Entry:
        return self._client.get_garment(clothing)

    def _files_of_good(self) -> dict[str, Path]:
        image, tensor = self._folder / "good.png", self._folder / "good.npy"
        values = self._good.values
        values[IMAGE].save(image)
        np.save(tensor, values[TENSOR].numpy())
        return {IMAGE: image, TENSOR: tensor}


def _sentence(stderr: str) -> str:
    """Return the codec's own words: both ways put theirs around them."""
    text = " ".join(stderr.split())
    found = re.search(r"(?:image|pickle) refused: .*?(?= \((?:IMAGE|PICKLE)_REFUSED\)|$)", text)
    return found[0] if found else text


@pytest.fixture
def both_ways(run: Run, daemon: Daemon, tmp_path: Path) -> Iterator[BothWays]:
    ways = BothWays(run, daemon, tmp_path)
    yield ways
    ways.close()


def _by_origin(file: File) -> Tensor | str:
    field = next(field for field in GARMENT.fields if field.name == file.field)
    try:
        members.plan_member(field, file.data)
        return members.decode_member(field, file.data)
    except OriginDataCorrupt as exc:
        return _sentence(exc.message)


def _by_put(file: File, folder: Path) -> Tensor | str:
    path = folder / f"{file.field}{file.suffix}"
    path.write_bytes(file.data)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return fields_of(field_files.read_fields([str(path)]))[file.field]
    except SystemExit:
        return _sentence(printed.getvalue())


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_or_refused_alike_by_put_and_from_the_origin(
    name: str, tmp_path: Path
) -> None:
    file = FILES[name]

    filled, put = _by_origin(file), _by_put(file, tmp_path)

    assert filled == put
    if isinstance(filled, str):
        assert file.refused
        assert file.refused in filled
        return
    assert not file.refused
    if file.field == IMAGE:
        with Image.open(io.BytesIO(file.plain or file.data)) as image:
            assert bytes(filled.data) == image.convert(filled.mode).tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "colour 3 of 4 bits, tRNS",
        "colour 6 of 16 bits, interlaced, too long",
        "colour 0 of 1 bits, interlaced, too short",
        "5 MiB of text",
        "an animation",
        "mode 1",
        "mode I;16",
        "JPEG",
    ],
)
def test_a_file_goes_both_ways_through_a_daemon(both_ways: BothWays, name: str) -> None:
    file = FILES[name]

    filled, put = both_ways.by_origin(file), both_ways.by_put(file)

    if file.refused:
        assert filled == put
        assert file.refused in str(filled)
        return
    assert isinstance(filled, Entry), filled
    assert isinstance(put, Entry), put
    assert bytes(filled.blob) == bytes(put.blob) == bytes(both_ways.again(filled).blob)
