"""What does one person's wardrobe look like at the origin?

Writes a folder with the object keys, formats and sizes of the original: PNGs of
about 1 MB, and raw pickles of fp16 tensors, without torch. The same seed gives the
same bytes. `python examples/demo/sample_data.py FOLDER` writes into that folder.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc_format.blob import Tensor

USER = "demo-person"
GARMENTS = tuple(f"outfit-{number:02d}" for number in range(1, 11))

WIDTH, HEIGHT = 768, 1024
# Grain of this depth makes a smooth 768x1024 picture a PNG of about 1 MB.
_GRAIN_LEVELS = 7
_TEXT_SHAPES = {
    "prompt_embeds": (1, 77, 2048),
    "negative_prompt_embeds": (1, 77, 2048),
    "pooled_prompt_embeds": (1, 1280),
    "negative_pooled_prompt_embeds": (1, 1280),
    "prompt_embeds_c": (1, 77, 2048),
}


def write_origin(root: Path) -> None:
    """Write one person (upper body) and ten garments with their texts."""
    write_person(root, photo=1)
    for number, garment in enumerate(GARMENTS):
        _write_garment(root, garment, np.random.default_rng(1000 + number))


def write_person(root: Path, *, photo: int) -> None:
    """Write the person as prepared from photo number `photo`, over the earlier one."""
    rng = np.random.default_rng(photo)
    folder = _prefix(root) / "upper"
    body = _ellipse(WIDTH, HEIGHT)
    _write(folder / "human_img.png", _png(_picture(rng)))
    _write(folder / "mask.png", _png(Image.fromarray(body)))
    half = _ellipse(WIDTH // 2, HEIGHT // 2) // 2 + 64
    _write(folder / "mask_gray.png", _png(Image.fromarray(half)))
    _write(folder / "pose_tensor.pkl", _pickle(rng, (1, 3, HEIGHT, WIDTH)))


def human_image(root: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the photo's pixels as the origin has them now, shape (H, W, 3)."""
    with Image.open(_prefix(root) / "upper" / "human_img.png") as image:
        return np.asarray(image)


def _write_garment(root: Path, garment: str, rng: np.random.Generator) -> None:
    prefix = _prefix(root)
    _write(prefix / "garments" / f"{garment}_img.png", _png(_picture(rng)))
    _write(prefix / "garments" / f"{garment}_tensor.pkl", _pickle(rng, (1, 3, 512, 384)))
    for field, shape in _TEXT_SHAPES.items():
        _write(prefix / "text" / f"{garment}_{field}.pkl", _pickle(rng, shape))


def _prefix(root: Path) -> Path:
    return root / "users" / USER / "vton-cache"


def _picture(rng: np.random.Generator) -> Image.Image:
    """Return a smooth RGB picture with the grain of a photo."""
    blobs = rng.integers(30, 220, (6, 5, 3), dtype=np.uint8)
    smooth = Image.fromarray(blobs).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    grain = rng.integers(0, _GRAIN_LEVELS, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(smooth) // 2 + 64 + grain)


def _ellipse(width: int, height: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.where(x**2 / 0.3 + y**2 / 0.7 < 1, 255, 0).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def _pickle(rng: np.random.Generator, shape: tuple[int, ...]) -> bytes:
    values = rng.standard_normal(shape, dtype=np.float32).astype("<f2")
    return encode_pickle(Tensor("F16", shape, values.tobytes()))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("usage: python examples/demo/sample_data.py FOLDER", file=sys.stderr)
        sys.exit(2)
    write_origin(Path(sys.argv[1]))
