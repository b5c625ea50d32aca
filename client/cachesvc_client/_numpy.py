"""The only module that imports numpy: views of a blob as arrays, and arrays as fields.

Runs on numpy 1.24.
"""

from __future__ import annotations

from typing import Any

from cachesvc_client.errors import InvalidRequest
from cachesvc_format.blob import FieldLayout, Tensor

try:
    import numpy as np
    import numpy.typing as npt
except ImportError as exc:
    raise ImportError(
        "arrays need numpy: pip install numpy, or install the client's wheel or checkout with "
        "its extra [numpy]"
    ) from exc

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def array_of(blob: memoryview, field: FieldLayout) -> npt.NDArray[Any]:
    """Return the field as an array that shares the blob's memory.

    Raises:
        TypeError: for BF16, which numpy does not have. Its bits as uint16 would look like
            numbers and be wrong.
    """
    dtype = _DTYPES.get(field.dtype)
    if dtype is None:
        raise TypeError(f"{field.name} is {field.dtype}, which numpy does not have: use .torch()")
    flat = np.frombuffer(blob[field.begin : field.end], dtype=dtype)
    return flat.reshape(field.shape)


def field_of(name: str, array: npt.NDArray[Any]) -> Tensor:
    """Return an array of any strides and byte order as a field.

    Raises:
        InvalidRequest: for a dtype that a blob cannot hold.
    """
    try:
        dtype = _NAMES.get(array.dtype.newbyteorder("<"))
    except TypeError:  # another package's dtype, whose parts numpy does not know
        dtype = None
    if dtype is None:
        raise InvalidRequest(
            f"{name}: a {array.dtype} array cannot be stored: convert it to one of "
            f"{', '.join(str(held) for held in _NAMES)}",
            reason="UNSUPPORTED_DTYPE",
        )
    plain = np.ascontiguousarray(array, dtype=_DTYPES[dtype])
    data = plain.reshape(-1).view(np.uint8).data.toreadonly()
    # Store the caller's shape: ascontiguousarray makes a 0-d array 1-d.
    return Tensor(dtype, tuple(array.shape), data)
