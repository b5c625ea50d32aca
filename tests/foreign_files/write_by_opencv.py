"""Writes each photo as PNGs of many kinds with OpenCV.

python write_by_opencv.py OUT PHOTO...

Runs in a process of its own, with OpenCV in a folder of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

STRATEGIES = ("DEFAULT", "FILTERED", "HUFFMAN_ONLY", "RLE", "FIXED")


def main(out: Path, photos: list[Path]) -> None:
    for photo in photos:
        image = cv2.imread(str(photo), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        alpha = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
        alpha[:, :, 3] = grey
        deep = image.astype(np.uint16) * 257
        kinds = {
            "plain": (image, []),
            "level 9": (image, [cv2.IMWRITE_PNG_COMPRESSION, 9]),
            "stored": (image, [cv2.IMWRITE_PNG_COMPRESSION, 0]),
            "grey": (grey, []),
            "bitmap": (grey, [cv2.IMWRITE_PNG_BILEVEL, 1]),
            "alpha": (alpha, []),
            "16 bit": (deep, []),
            "16 bit alpha": (alpha.astype(np.uint16) * 257, []),
            "16 bit grey": (grey.astype(np.uint16) * 257, []),
        }
        for name in STRATEGIES:
            strategy = getattr(cv2, f"IMWRITE_PNG_STRATEGY_{name}")
            kinds[f"strategy {name}"] = (image, [cv2.IMWRITE_PNG_STRATEGY, strategy])
        for kind, (pixels, options) in kinds.items():
            path = out / f"opencv-{photo.stem}-{kind.replace(' ', '_')}.png"
            assert cv2.imwrite(str(path), pixels, options)
        _write_with_metadata(out, photo)


def _write_with_metadata(out: Path, photo: Path) -> None:
    if not hasattr(cv2, "imreadWithMetadata"):
        return
    pixels, kinds, metadata = cv2.imreadWithMetadata(str(photo), flags=cv2.IMREAD_COLOR)
    path = out / f"opencv-{photo.stem}-metadata.png"
    assert cv2.imwriteWithMetadata(str(path), pixels, kinds, metadata)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
