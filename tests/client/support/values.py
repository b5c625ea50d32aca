"""Entries of real shapes scaled down, filled with reproducible noise."""

from __future__ import annotations

import random
from typing import Any
from uuid import uuid4

import torch
from PIL import Image

TEXT_SHAPES = {
    "prompt_embeds": (1, 77, 16),
    "negative_prompt_embeds": (1, 77, 16),
    "pooled_prompt_embeds": (1, 32),
    "negative_pooled_prompt_embeds": (1, 32),
    "prompt_embeds_c": (1, 77, 16),
}


def fresh_id(prefix: str) -> str:
    """Return an id that no other test has used, so that tests may share a daemon."""
    return f"{prefix}-{uuid4().hex}"


def image(mode: str, width: int = 48, height: int = 64, seed: int = 1) -> Image.Image:
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    noise = random.Random(seed).randbytes(width * height * channels)
    return Image.frombytes(mode, (width, height), noise)


def tensor(*shape: int, dtype: torch.dtype = torch.float16, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def human(seed: int = 1) -> dict[str, Any]:
    return {
        "human_img": image("RGB", seed=seed),
        "mask": image("L", seed=seed),
        "mask_gray": image("L", 24, 32, seed=seed),
        "pose_tensor": tensor(1, 3, 64, 48, seed=seed),
    }


def garment(seed: int = 1) -> dict[str, Any]:
    return {"garm_img": image("RGB", seed=seed), "garm_tensor": tensor(1, 3, 32, 24, seed=seed)}


def text(seed: int = 1) -> dict[str, Any]:
    return {name: tensor(*shape, seed=seed) for name, shape in TEXT_SHAPES.items()}
