"""One decoded field of an entry, as it will be stored.

dtype names are those of safetensors: `F16`, `BF16`, `U8`, ... Images are U8,
shape (H, W) or (H, W, C), with the PIL mode beside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Buffer = bytes | bytearray | memoryview

DTYPE_SIZE_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "I32": 4,
    "I64": 8,
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
}


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What an object's header says before anything is decoded.

    `size_bytes` is the least that its value has, `needed_bytes` the most memory that decoding
    takes, the value included.
    """

    size_bytes: int
    needed_bytes: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A contiguous (C order), little-endian array.

    `data` is `size_bytes` long. `mode` is the PIL mode of an image, else None.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Buffer
    mode: str | None = None

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * DTYPE_SIZE_BYTES[self.dtype]
