"""The cache that this product replaces, V2, reading an entry from its own disk level.

The files are as V2 stored them, one PNG for each image and one pickle for each tensor: Pillow opens
them, torch unpickles them. V2 returned images as PIL images; here they become tensors, as in every
row. The files are in tmpfs: V2's were in the page cache after the first read.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.contender import Contender
from bench.workloads import Fields


class V2Disk(Contender):
    title = "V2, hit on disk: PNGs and pickles"

    def setup(self) -> None:
        self._paths = {
            name: _store(self.folder / name, tensor)
            for name, tensor in self.workload.expected.items()
        }

    def call(self) -> Fields:
        return {name: _load(path) for name, path in self._paths.items()}


def _store(stem: Path, tensor: torch.Tensor) -> Path:
    if tensor.dtype is torch.uint8:
        path = stem.with_suffix(".png")
        Image.fromarray(tensor.numpy()).save(path)
    else:
        path = stem.with_suffix(".pkl")
        path.write_bytes(pickle.dumps(tensor))
    return path


def _load(path: Path) -> torch.Tensor:
    if path.suffix == ".png":
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image))
    loaded: torch.Tensor = pickle.loads(path.read_bytes())  # written by `_store`
    return loaded
