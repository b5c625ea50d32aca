"""Which objects would the original service have left at the origin? Its own libraries write them.

torch and Pillow write the objects here and read them back for comparison, so the daemon's own
readers are never their own oracle.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from tests.support.s3.servers import S3Server

PARTS = {"upper": "human_upper_body", "lower": "human_lower_body", "dresses": "human_dresses"}
WIDE_TEXTS = ("prompt_embeds", "negative_prompt_embeds", "prompt_embeds_c")
POOLED_TEXTS = ("pooled_prompt_embeds", "negative_pooled_prompt_embeds")
Save = Callable[[torch.Tensor], bytes]


@dataclass(frozen=True)
class Sizes:
    """Images are (width, height)."""

    image: tuple[int, int]
    gray: tuple[int, int]
    pose: tuple[int, ...]
    garment: tuple[int, ...]
    wide: tuple[int, ...]
    pooled: tuple[int, ...]


SMALL = Sizes((48, 64), (24, 32), (1, 3, 64, 48), (1, 3, 32, 24), (1, 77, 16), (1, 32))
REAL = Sizes((768, 1024), (384, 512), (1, 3, 1024, 768), (1, 3, 512, 384), (1, 77, 2048), (1, 1280))


@dataclass(frozen=True)
class Sample:
    """One entry: its `objects` by key at the origin, and their `values` by field."""

    objects: dict[str, bytes]
    values: dict[str, torch.Tensor | Image.Image]

    def matches(self, blob: bytes) -> bool:
        """Return whether `blob` holds exactly these values, bit for bit."""
        found = safetensors.torch.load(blob)
        expected = {name: _as_tensor(value) for name, value in self.values.items()}
        return found.keys() == expected.keys() and all(
            found[name].dtype == value.dtype and torch.equal(found[name], value)
            for name, value in expected.items()
        )

    def blob(self) -> bytes:
        """Return the entry as safetensors' own library writes it."""
        tensors = {name: _as_tensor(value) for name, value in self.values.items()}
        modes = {
            f"{name}.mode": value.mode
            for name, value in self.values.items()
            if isinstance(value, Image.Image)
        }
        blob: bytes = safetensors.torch.save(tensors, metadata={"cachesvc.format": "1", **modes})
        return blob


def fresh_id(prefix: str) -> str:
    """Return an id that no other test has used, so that tests may share a daemon."""
    return f"{prefix}-{uuid4().hex}"


def torch_save(tensor: torch.Tensor) -> bytes:
    """Return the tensor as `torch.save` writes it, as for some of the original's objects."""
    out = io.BytesIO()
    torch.save(tensor, out)
    return out.getvalue()


def person(
    user_id: str,
    part: str = "upper",
    *,
    seed: int = 1,
    sizes: Sizes = SMALL,
    save: Save = pickle.dumps,
) -> Sample:
    values: dict[str, Any] = {
        "human_img": image("RGB", sizes.image, seed),
        "mask": image("L", sizes.image, seed + 1),
        "mask_gray": image("L", sizes.gray, seed + 2),
        "pose_tensor": tensor(sizes.pose, seed),
    }
    folder = f"users/{user_id}/vton-cache/{part}"
    return _sample({f"{folder}/{name}": value for name, value in values.items()}, values, save)


def garment(
    clothing_id: str,
    owner_id: str,
    *,
    seed: int = 1,
    sizes: Sizes = SMALL,
    save: Save = pickle.dumps,
) -> Sample:
    values: dict[str, Any] = {
        "garm_img": image("RGB", sizes.image, seed),
        "garm_tensor": tensor(sizes.garment, seed),
    }
    folder = f"users/{owner_id}/vton-cache/garments"
    named = {
        f"{folder}/{clothing_id}_img": values["garm_img"],
        f"{folder}/{clothing_id}_tensor": values["garm_tensor"],
    }
    return _sample(named, values, save)


def text(
    clothing_id: str,
    owner_id: str,
    *,
    seed: int = 1,
    sizes: Sizes = SMALL,
    save: Save = pickle.dumps,
) -> Sample:
    values: dict[str, Any] = {
        **{name: tensor(sizes.wide, seed + at) for at, name in enumerate(WIDE_TEXTS)},
        **{name: tensor(sizes.pooled, seed + at) for at, name in enumerate(POOLED_TEXTS)},
    }
    folder = f"users/{owner_id}/vton-cache/text"
    named = {f"{folder}/{clothing_id}_{name}": value for name, value in values.items()}
    return _sample(named, values, save)


def image(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    """Return an image that compresses about as well as a photo."""
    width, height = size
    noise = np.random.default_rng(seed).integers(
        0, 256, (height // 8, width // 8, 3), dtype=np.uint8
    )
    return Image.fromarray(noise).convert(mode).resize(size)


def tensor(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def put_in_folder(root: Path, *samples: Sample) -> None:
    """Write the directory origin's objects; each appears whole or not at all."""
    for object_key, data in merged(samples).items():
        path = root / object_key
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        unfinished.write_bytes(data)
        unfinished.replace(path)


def put_in_bucket(server: S3Server, bucket: str, *samples: Sample) -> None:
    client = server.client()
    for object_key, data in merged(samples).items():
        client.put_object(Bucket=bucket, Key=object_key, Body=data)


def merged(samples: tuple[Sample, ...]) -> dict[str, bytes]:
    return {key: data for sample in samples for key, data in sample.objects.items()}


def _sample(named: Mapping[str, Any], values: dict[str, Any], save: Save) -> Sample:
    objects = {}
    for name, value in named.items():
        if isinstance(value, Image.Image):
            objects[f"{name}.png"] = _png(value)
        else:
            objects[f"{name}.pkl"] = save(value)
    return Sample(objects, values)


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, format="PNG")
    return out.getvalue()


def _as_tensor(value: torch.Tensor | Image.Image) -> torch.Tensor:
    if isinstance(value, Image.Image):
        return torch.from_numpy(np.array(value))
    return value
