"""Tensors as numpy arrays and back, for peers that store arrays; neither direction copies."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from bench.workloads import Fields

Arrays = dict[str, "np.ndarray[Any, Any]"]


def arrays_of(fields: Fields) -> Arrays:
    """Return the tensors as arrays that share their memory."""
    return {name: tensor.numpy() for name, tensor in fields.items()}


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return an array as a tensor that shares its memory."""
    return torch.from_numpy(array)


def allow_read_only() -> None:
    """Silence torch's warning about read-only memory: code must not write to such a peer's
    tensors.
    """
    warnings.filterwarnings("ignore", message="The given .* is not writable")
