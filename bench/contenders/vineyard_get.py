"""vineyard: one object of an entry's tensors, from the daemon in its wheel."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from bench.arrays import allow_read_only, arrays_of, tensor_of
from bench.contender import Contender, Unavailable
from bench.servers import Server
from bench.workloads import Fields

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a warning of pkg_resources about itself
    import vineyard


class VineyardGet(Contender):
    title = "vineyard, one object of all tensors"
    _server: Server | None = None

    def setup(self) -> None:
        allow_read_only()
        program = Path(vineyard.__file__).parent / "bdist" / "vineyardd"
        if not program.exists():
            raise Unavailable("this vineyard wheel brings no vineyardd")
        path = self.folder / "vineyard.sock"
        options = ["--size", "128Mi", "--meta", "local", "--rpc=false"]
        self._server = Server([str(program), "--socket", str(path), *options], path)
        self._client = vineyard.connect(str(path))
        self._names = list(self.workload.expected)
        self._ids = [
            self._client.put(tuple(arrays_of(fields).values()))
            for fields in self.workload.parts.values()
        ]

    def call(self) -> Fields:
        arrays = (array for id in self._ids for array in self._client.get(id))
        return {
            name: tensor_of(np.asarray(array))
            for name, array in zip(self._names, arrays, strict=True)
        }

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
