"""A tensor's object in each form that an origin may hold, written and read by others' code."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

# As the blob names them.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
FORMS = ("zip", "legacy", "raw")


def tensor_in_form(form: str, value: object) -> bytes:
    """Return what `torch.save` or `pickle.dumps` writes."""
    if form == "raw":
        return pickle.dumps(value)
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=form == "zip")
    return out.getvalue()


def loaded(form: str, data: bytes) -> Any:
    """Return what the form's own reader reads: `pickle.load`, or `torch.load` without code."""
    if form == "raw":
        return pickle.loads(data)
    return torch.load(io.BytesIO(data), weights_only=True)
