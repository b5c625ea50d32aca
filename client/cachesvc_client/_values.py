"""Finds the library of a value to store, without importing any library.

A value of a library's type exists only if the library is already loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cachesvc_client._arguments import is_a, is_image, kind_of
from cachesvc_client.errors import InvalidRequest
from cachesvc_format.blob import Tensor
from cachesvc_format.foreign import Family, name_of


def fields_of(values: Mapping[str, object]) -> dict[str, Tensor]:
    """Return PIL images, torch tensors and numpy arrays as fields. Raises InvalidRequest.

    Values that are already fields stay unchanged.
    """
    return {name: field_of(name, value) for name, value in values.items()}


def field_of(name: str, value: object) -> Tensor:
    """Return one value as a field. Raises InvalidRequest for any other type."""
    if not isinstance(name, str):
        raise InvalidRequest(
            f"fields: each name must be a str, not {kind_of(name)}", reason="UNSUPPORTED_TYPE"
        )
    if isinstance(value, Tensor):
        return value
    if is_image(value):
        from cachesvc_client import _images

        return _images.field_of(name, value)  # type: ignore[arg-type]
    if is_a(value, "torch", "Tensor"):
        from cachesvc_client import _torch

        return _torch.field_of(name, value)
    if is_a(value, "numpy", "ndarray"):
        from cachesvc_client import _numpy

        return _numpy.field_of(name, value)  # type: ignore[arg-type]
    raise InvalidRequest(
        f"{name} must be a PIL image, a torch tensor or a numpy array, not {_said_of(value)}",
        reason="UNSUPPORTED_TYPE",
    )


# How a file's bytes become a value that can be stored.
_OPENED_BY = {
    Family.PNG: "PIL.Image.open(io.BytesIO(data))",
    Family.IMAGE: "PIL.Image.open(io.BytesIO(data))",
    Family.TORCH: "pickle.loads or torch.load",
    Family.ARRAY: "numpy.load(io.BytesIO(data))",
    Family.SAFETENSORS: "safetensors.torch.load(data)[name]",
}


def _said_of(value: object) -> str:
    """Return the type of a value, and what its bytes are and how they are opened."""
    if isinstance(value, str | os.PathLike):
        return f"{kind_of(value)}: open the file first, as with PIL.Image.open(path)"
    if not isinstance(value, bytes | bytearray | memoryview):
        return kind_of(value)
    found = name_of(value)
    if found is None:
        return kind_of(value)
    way = _OPENED_BY.get(found.family)
    remedy = f": put what {way} returns" if way else ""
    return f"{kind_of(value)} that begin as {found.name}{remedy}"
