"""safetensors' own reader on a file in tmpfs: no service, no validity, no bounds."""

from __future__ import annotations

import safetensors.torch

from bench.contender import Contender
from bench.workloads import Fields


class LoadFile(Contender):
    title = "safetensors.torch.load_file from tmpfs"

    def setup(self) -> None:
        self._paths = [self.folder / part for part in self.workload.parts]
        for path, blob in zip(self._paths, self.workload.blobs().values(), strict=True):
            path.write_bytes(blob)

    def call(self) -> Fields:
        fields: Fields = {}
        for path in self._paths:
            fields |= safetensors.torch.load_file(path)
        return fields
