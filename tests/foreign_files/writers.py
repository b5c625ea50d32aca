"""Which programs write PNGs of the photos, and how are they called?

sharp, pngjs and OpenCV are installed into a folder, once; ImageMagick is one of `make programs`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.foreign_files.sources import call
from tests.support.debian import why_missing

WRITERS = ("imagemagick", "sharp", "pngjs", "opencv")
NPM = ("sharp@0.34.5", "pngjs@7.0.0")
OPENCV = "opencv-python-headless==5.0.0.93"
_HERE = Path(__file__).parent
_BY_IMAGEMAGICK: dict[str, Sequence[str]] = {
    "plain": (),
    "interlaced": ("-interlace", "PNG"),
    "16-bit": ("-depth", "16", "-define", "png:bit-depth=16"),
    "palette": ("-colors", "200", "-define", "png:color-type=3"),
    "palette-of-4": ("-colors", "4", "-define", "png:color-type=3"),
    "grey": ("-colorspace", "Gray"),
    "grey-alpha": ("-colorspace", "Gray", "-alpha", "set", "-define", "png:color-type=4"),
    "bitmap": ("-monochrome",),
    "alpha": ("-alpha", "set", "-channel", "A", "-evaluate", "set", "70%"),
    "stripped": ("-strip",),
    "small-chunks": ("-define", "png:IDAT-chunk-size=512", "-quality", "05"),
}


def install(folder: Path) -> None:
    """Install the writers into `folder`, if they are not there yet. Raises CannotFetch."""
    node, opencv = folder / "node", folder / "opencv"
    if not (node / "node_modules/sharp").exists():
        node.mkdir(parents=True, exist_ok=True)
        (node / "package.json").write_text("{}")
        options = ("--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error")
        call(
            f"the npm packages {', '.join(NPM)}",
            ("npm", "install", *options, "--fetch-retries=0", *NPM),
            cwd=node,
        )
    if not (opencv / "cv2").exists():
        options = ("--no-deps", "--only-binary", ":all:", "--retries", "0", "-q", "--target")
        pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check")
        call(f"the PyPI package {OPENCV}", (*pip, *options, str(opencv), OPENCV))


def write(folder: Path, photos: Sequence[Path], into: Path) -> dict[str, str]:
    """Write PNGs of all kinds into `into`; return why a writer is missing. Raises CannotFetch."""
    into.mkdir(parents=True, exist_ok=True)
    names = [str(photo) for photo in photos]
    node = (str(_HERE / "write.mjs"), str(folder / "node"), str(into), *names)
    call("PNGs of sharp and pngjs", ("node", *node))
    paths = {**os.environ, "PYTHONPATH": str(folder / "opencv")}
    opencv = (sys.executable, str(_HERE / "write_by_opencv.py"), str(into), *names)
    call("PNGs of OpenCV", opencv, env=paths)
    missing = why_missing("mogrify")
    if missing is not None:
        return {"imagemagick": missing}
    for kind, options in _BY_IMAGEMAGICK.items():
        out = into / "imagemagick" / kind
        out.mkdir(parents=True, exist_ok=True)
        command = ("mogrify", "-path", str(out), *options, "-format", "png", *names)
        call(f"PNGs of ImageMagick ({kind})", command)
    return {}


def written(into: Path) -> dict[str, list[Path]]:
    """Return the PNGs of each writer."""
    own = {name: sorted(into.glob(f"{name}-*.png")) for name in WRITERS if name != "imagemagick"}
    return {**own, "imagemagick": sorted((into / "imagemagick").glob("*/*.png"))}
