"""A readable file over several buffers, which need not be joined."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from cachesvc.core.tensors import Buffer


class PartsFile(io.RawIOBase):
    """Reads `parts` one after the other. A read copies only what it returns."""

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self._views = [memoryview(part).cast("B") for part in parts]
        self._ends = list(accumulate(view.nbytes for view in self._views))
        self._size_bytes = self._ends[-1] if self._ends else 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left_bytes = max(0, self._size_bytes - self._at)
        wanted_bytes = left_bytes if size is None or size < 0 else min(size, left_bytes)
        return b"".join(self._next(wanted_bytes))

    def _next(self, wanted_bytes: int) -> list[memoryview]:
        found: list[memoryview] = []
        index = bisect_right(self._ends, self._at)
        while wanted_bytes:
            view = self._views[index]
            begin = self._at - (self._ends[index] - view.nbytes)
            piece = view[begin : begin + wanted_bytes]
            found.append(piece)
            self._at += piece.nbytes
            wanted_bytes -= piece.nbytes
            index += 1
        return found
