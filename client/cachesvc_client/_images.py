"""The only module that imports Pillow: fields as images, and images as fields.

Runs on Pillow 10. Images are stored decoded, in their own mode.
"""

from __future__ import annotations

from cachesvc_client.errors import InvalidRequest
from cachesvc_format.blob import CHANNELS, FieldLayout, Tensor, image_shape

try:
    from PIL import Image
except ImportError as exc:
    raise ImportError(
        "images need Pillow: pip install pillow, or install the client's wheel or checkout with "
        "its extra [images]"
    ) from exc


def image_of(blob: memoryview, field: FieldLayout) -> Image.Image:
    """Return the field as an image in its original mode.

    L and RGBA share the blob's memory (Pillow copies on the first write); RGB and LA are copied
    once, because Pillow widens their pixels to 4 bytes.

    Raises:
        TypeError: if the field is not an image.
    """
    if field.mode not in CHANNELS:
        raise TypeError(f"{field.name} is not an image")
    size = (field.shape[1], field.shape[0])
    data = blob[field.begin : field.end]
    # Pillow takes any buffer; its annotation names only some types.
    return Image.frombuffer(field.mode, size, data, "raw", field.mode, 0, 1)  # type: ignore[arg-type]


def field_of(name: str, image: Image.Image) -> Tensor:
    """Return an image as a field; decodes it if it was opened lazily.

    Modes 1 and P become L, RGB or RGBA, as in a fill from the same PNG: no pixel changes.

    Raises:
        InvalidRequest: for other modes than these and L, LA, RGB, RGBA. Converting would be
            lossy or a guess (16 bits, CMYK), so the caller decides.
    """
    image = _without_palette(image)
    if image.mode not in CHANNELS:
        raise InvalidRequest(
            f"{name}: a {image.mode} image cannot be stored; convert it to one of "
            f"{', '.join(CHANNELS)}",
            reason="UNSUPPORTED_IMAGE_MODE",
        )
    shape = image_shape(image.mode, image.height, image.width)
    return Tensor("U8", shape, image.tobytes(), image.mode)


def _without_palette(image: Image.Image) -> Image.Image:
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image
