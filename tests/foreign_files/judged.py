"""Is a PNG read as Pillow reads it, and if not, is it refused for a documented reason?

Pillow reads the file unchanged. Some files it refuses for what lies beside their pixels, a text
that inflates to megabytes or a short chunk, which the daemon does not read: then Pillow reads the
file again without those chunks.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cachesvc.codec.images import decode_png, plan_png
from cachesvc.core.errors import OriginDataCorrupt
from cachesvc_format.blob import Tensor

ERRORS = Path(__file__).parents[2] / "docs/errors.md"
# A refusal's sentence stays one kind whatever its numbers are.
_NUMBER = re.compile(r"\b\d+(?= (?:bytes|frames|of|x)\b)|\b\d{3,}\b")
_REASON = re.compile(r"^- `([A-Z_]+)`", re.MULTILINE)
_DECIDE_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_KEPT_MODES = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA"}


class Outcome(Enum):
    SAME = "same pixels"
    SAME_BESIDE = "same, Pillow refuses what is beside"
    REFUSED = "refused"
    OTHER = "OTHER"


class Verdict(NamedTuple):
    """`why` is the sentence of a refusal, with N for its numbers, or what else happened."""

    outcome: Outcome
    why: str = ""


def documented_reasons() -> set[str]:
    return set(_REASON.findall(ERRORS.read_text()))


def judged(data: bytes, reasons: set[str]) -> Verdict:
    """Return what the daemon makes of a PNG. Raises nothing."""
    try:
        read = decode_png(data)
        planned_bytes = plan_png(data).size_bytes
    except OriginDataCorrupt as exc:
        if exc.reason not in reasons:
            return Verdict(Outcome.OTHER, f"{exc.reason} is not documented")
        return Verdict(Outcome.REFUSED, f"{exc.reason}: {_NUMBER.sub('N', exc.message)}")
    except Exception as exc:  # noqa: BLE001 a file must cause no other error: this looks for one
        return Verdict(Outcome.OTHER, f"raises {type(exc).__name__}")
    if read.size_bytes < planned_bytes:
        return Verdict(Outcome.OTHER, "its header says more bytes than its pixels have")
    return _compared(read, data)


def _compared(read: Tensor, data: bytes) -> Verdict:
    for outcome, version in ((Outcome.SAME, data), (Outcome.SAME_BESIDE, _bare(data))):
        by_pillow = _by_pillow(version)
        if by_pillow is not None:
            is_same = by_pillow == (read.mode, read.shape[:2], bytes(read.data))
            return Verdict(outcome) if is_same else Verdict(Outcome.OTHER, "other pixels")
    return Verdict(Outcome.OTHER, "read, and Pillow refuses its pixels")


def _by_pillow(data: bytes) -> tuple[str, tuple[int, int], bytes] | None:
    """Return mode, shape and pixels, or None if Pillow refuses the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
                image.load()
                mode = _KEPT_MODES.get(image.mode)
                if image.mode == "P":
                    mode = "RGBA" if "transparency" in image.info else "RGB"
                pixels = image.convert(mode) if mode else image
                return mode or image.mode, (image.height, image.width), pixels.tobytes()
    except Exception:  # noqa: BLE001 Pillow raises what it likes
        return None


def _bare(data: bytes) -> bytes:
    """Return the PNG without the chunks that do not decide its pixels."""
    kept, at = data[:8], 8
    while at + 12 <= len(data):
        size_bytes, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size_bytes
        if name in _DECIDE_PIXELS:
            kept += data[at:end]
        at = end
    return kept
