"""What stands in for the models of diffusion, and of preparing photos and garments?

No GPU, no weights: a picture is pasted on a picture, and tensors are drawn from the pictures, in
the shapes and modes of IDM-VTON. Replace this module.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from PIL import Image

SIZE = (768, 1024)
GRAY_SIZE = (384, 512)


def diffuse(*, image: Image.Image, ip_adapter_image: Image.Image, **_: Any) -> Image.Image:
    """Put the garment on the person, small. Takes the pipeline's keyword arguments."""
    picture = image.copy()
    width, height = picture.size
    picture.paste(ip_adapter_image.resize((width // 3, height // 3)), (width // 3, height // 3))
    return picture


def prepare_human(photo: Image.Image) -> dict[str, Any]:
    """Return the fields of a person's entry."""
    picture = photo.convert("RGB").resize(SIZE)
    mask = picture.convert("L").point(lambda level: 255 if level > 127 else 0)
    return {
        "human_img": picture,
        "mask": mask,
        "mask_gray": picture.convert("L").resize(GRAY_SIZE),
        "pose_tensor": _drawn_from(picture.tobytes(), (1, 3, 1024, 768)),
    }


def prepare_garment(photo: Image.Image) -> dict[str, Any]:
    """Return the fields of a garment's entry."""
    picture = photo.convert("RGB").resize(SIZE)
    return {
        "garm_img": picture,
        "garm_tensor": _drawn_from(picture.tobytes(), (1, 3, 512, 384)),
    }


def prepare_text(description: str) -> dict[str, Any]:
    """Return the fields of a garment's text entry."""
    shapes = {
        "prompt_embeds": (1, 77, 2048),
        "negative_prompt_embeds": (1, 77, 2048),
        "pooled_prompt_embeds": (1, 1280),
        "negative_pooled_prompt_embeds": (1, 1280),
        "prompt_embeds_c": (1, 77, 2048),
    }
    return {
        name: _drawn_from(f"{name} {description}".encode(), shape) for name, shape in shapes.items()
    }


def _drawn_from(source: bytes, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(source))
    return torch.randn(shape, generator=generator).half()
