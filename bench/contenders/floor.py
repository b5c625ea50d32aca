"""The lower bound: map a file in tmpfs and make views, with the layout known beforehand."""

from __future__ import annotations

import mmap
import os

from bench import layout
from bench.contender import Contender
from bench.workloads import Fields


class Floor(Contender):
    title = "floor: mmap + views, layout known"

    def setup(self) -> None:
        packed, self._views = layout.pack(self.workload.expected)
        path = self.folder / "tensors"
        path.write_bytes(packed)
        self._fd = os.open(path, os.O_RDONLY)

    def call(self) -> Fields:
        # A private, writable mapping: torch wants writable memory, and the file does not change.
        mapped = mmap.mmap(self._fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
        return layout.tensors(mapped, self._views)
