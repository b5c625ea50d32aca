"""Does `make foreign-files` notice other pixels, undocumented refusals and missing packages?"""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from cachesvc.codec.images import decode_png
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor
from tests.foreign_files import judged
from tests.foreign_files.judged import Outcome, documented_reasons
from tests.support.png_files import KINDS, chunk, png, with_chunks

ROOT = Path(__file__).parents[2]
REASONS = documented_reasons()
BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 << 20)))


def _outcome(data: bytes, reasons: set[str] = REASONS) -> Outcome:
    return judged.judged(data, reasons).outcome


@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_the_same_pixels_are_recognised_in_every_kind(colour: int, depth: int) -> None:
    data = png(colour, depth, interlaced=1)

    assert _outcome(data) is Outcome.SAME
    assert _outcome(with_chunks(data, BOMB)) is Outcome.SAME_BESIDE


def test_a_refusal_needs_a_documented_reason() -> None:
    short = png(2, 8)[:-13]

    assert judged.judged(short, REASONS) == (
        Outcome.REFUSED,
        "IMAGE_REFUSED: image refused: it is cut short",
    )
    assert _outcome(short, {"OBJECT_EMPTY"}) is Outcome.OTHER


def test_other_pixels_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = png(2, 8)

    def changed(_: bytes) -> Tensor:
        read = decode_png(data)
        pixels = bytes(read.data)
        return Tensor(read.dtype, read.shape, pixels[:-1] + bytes((pixels[-1] ^ 1,)), read.mode)

    monkeypatch.setattr(judged, "decode_png", changed)

    assert _outcome(data) is Outcome.OTHER
    assert _outcome(with_chunks(data, BOMB)) is Outcome.OTHER
    # A decoder that takes a short stream is found too, although Pillow raises nothing.
    assert _outcome(png(2, 8, bytes(40))) is Outcome.OTHER
    assert _outcome(data[:-30]) is Outcome.OTHER


@pytest.mark.parametrize("error", [ValueError, OriginDataCorrupt], ids=["any", "of no reason"])
def test_an_error_that_is_no_documented_refusal_is_noticed(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(_: bytes) -> Tensor:
        raise error("broken")

    monkeypatch.setattr(judged, "decode_png", broken)

    assert _outcome(png(2, 8), REASONS - {"ORIGIN_DATA_CORRUPT"}) is Outcome.OTHER


def test_where_packages_cannot_be_had_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT}/client"}
    command = [sys.executable, "-m", "tests.foreign_files", "--folder", str(tmp_path / "files")]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.startswith("This cannot be fetched or made: Debian's source packages")
    assert done.stdout.count("\n") == 1
