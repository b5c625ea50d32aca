"""What does one call fetch? The tensors of a person, a garment, its text, or all three.

Shapes are those of the try-on pipeline's real inputs; the values come from a fixed seed, so every
process builds the same bytes. Images are smooth with a little noise: as PNGs they take about as
much as photos do, which a reader of PNGs has to decode.
"""

from __future__ import annotations

from dataclasses import dataclass

import safetensors.torch
import torch

Fields = dict[str, torch.Tensor]

_IMAGE = (1024, 768, 3)
_SHAPES: dict[str, dict[str, tuple[torch.dtype, tuple[int, ...]]]] = {
    "human": {
        "human_img": (torch.uint8, _IMAGE),
        "mask": (torch.uint8, _IMAGE[:2]),
        "mask_gray": (torch.uint8, _IMAGE),
        "pose_tensor": (torch.float16, (1, 3, 1024, 768)),
    },
    "garment": {
        "garm_img": (torch.uint8, _IMAGE),
        "garm_tensor": (torch.float16, (1, 3, 512, 384)),
    },
    "text": {
        "prompt_embeds": (torch.float16, (1, 77, 2048)),
        "negative_prompt_embeds": (torch.float16, (1, 77, 2048)),
        "pooled_prompt_embeds": (torch.float16, (1, 1280)),
        "negative_pooled_prompt_embeds": (torch.float16, (1, 1280)),
        "prompt_embeds_c": (torch.float16, (1, 77, 2048)),
    },
}
# By workload, the entries that one call fetches.
PARTS: dict[str, tuple[str, ...]] = {
    "human": ("human",),
    "garment": ("garment",),
    "text": ("text",),
    "tryon": ("human", "garment", "text"),
}


@dataclass(frozen=True)
class Workload:
    """`parts` maps an entry to its fields. Field names are unique across the entries."""

    name: str
    parts: dict[str, Fields]

    @property
    def expected(self) -> Fields:
        """The tensors that a call must return."""
        return {name: t for fields in self.parts.values() for name, t in fields.items()}

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.expected.values())

    def blobs(self) -> dict[str, bytes]:
        """Return each entry as safetensors bytes, for rows that store bytes."""
        return {part: safetensors.torch.save(fields) for part, fields in self.parts.items()}


def build(name: str) -> Workload:
    """Return the workload of that name, a key of PARTS."""
    noise = torch.Generator().manual_seed(0)
    return Workload(name, {part: _fields(part, noise) for part in PARTS[name]})


def _fields(part: str, noise: torch.Generator) -> Fields:
    return {
        name: (
            _image(shape, noise)
            if dtype is torch.uint8
            else torch.randn(shape, generator=noise).to(dtype)
        )
        for name, (dtype, shape) in _SHAPES[part].items()
    }


def _image(shape: tuple[int, ...], noise: torch.Generator) -> torch.Tensor:
    """Return a smooth image with noise of 3 bits; a mask (H, W) has two values only."""
    height, width, channels = (*shape, 1)[:3]
    coarse = torch.rand((1, channels, height // 64, width // 64), generator=noise)
    size = (height, width)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    if len(shape) == 2:
        return (smooth[0, 0] > 0.5).to(torch.uint8) * 255
    grain = torch.randint(0, 8, (1, channels, *size), generator=noise)
    return (smooth * 248 + grain)[0].permute(1, 2, 0).to(torch.uint8).contiguous()
