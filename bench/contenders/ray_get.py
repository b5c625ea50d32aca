"""Ray: `ray.get` of a reference that the process holds, from this host's object store.

Each entry is one object, a dict of numpy arrays, because Ray returns arrays without a copy; torch
tensors cost 20 times as much. Like every Ray object the arrays are read-only, and a held reference
never becomes invalid: there is nothing to check.
"""

from __future__ import annotations

import os

import ray

from bench.arrays import allow_read_only, arrays_of, tensor_of
from bench.contender import Contender
from bench.workloads import Fields

_STORE_BYTES = 128 << 20


class RayGet(Contender):
    title = "ray.get of a held reference"
    _started = False

    def setup(self) -> None:
        allow_read_only()
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self._started = True
        ray.init(
            num_cpus=1,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=str(self.folder),
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level="error",
        )
        self._refs = [ray.put(arrays_of(fields)) for fields in self.workload.parts.values()]

    def call(self) -> Fields:
        return {
            name: tensor_of(array) for entry in ray.get(self._refs) for name, array in entry.items()
        }

    def close(self) -> None:
        if self._started:
            ray.shutdown()
