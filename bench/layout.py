"""Tensors one after the other without a header, for rows that know the layout beforehand."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

import torch

from bench.workloads import Fields


@dataclass(frozen=True, slots=True)
class View:
    """The place of one tensor: `count` elements from byte `offset`."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    count: int
    offset: int


def pack(fields: Fields) -> tuple[bytes, list[View]]:
    """Return the tensors' bytes, and the place of each tensor."""
    packed, views = bytearray(), []
    # Wide types first, so that each tensor starts at a multiple of its own width.
    for name, tensor in sorted(fields.items(), key=lambda field: -field[1].element_size()):
        shape = tuple(tensor.shape)
        views.append(View(name, tensor.dtype, shape, tensor.numel(), len(packed)))
        packed += tensor.numpy().tobytes()
    return bytes(packed), views


def tensors(buffer: bytes | mmap.mmap, views: list[View]) -> Fields:
    """Return the tensors as views of `buffer`."""
    return {
        view.name: torch.frombuffer(
            buffer, dtype=view.dtype, count=view.count, offset=view.offset
        ).view(view.shape)
        for view in views
    }
