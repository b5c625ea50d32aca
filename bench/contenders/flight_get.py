"""Arrow Flight over a unix socket: tensors as columns of one record, read in place."""

from __future__ import annotations

import sys

import pyarrow as pa
import pyarrow.flight
import torch

from bench.arrays import allow_read_only
from bench.contender import Contender
from bench.servers import Server
from bench.workloads import Fields


class FlightGet(Contender):
    title = "Arrow Flight, unix socket"
    _server: Server | None = None

    def setup(self) -> None:
        allow_read_only()
        expected = self.workload.expected
        self._shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in expected.items()}
        stored = self.folder / "record"
        columns = [pa.array([t.numpy().tobytes()], pa.large_binary()) for t in expected.values()]
        batch = pa.record_batch(columns, names=list(expected))
        with pa.ipc.new_file(str(stored), batch.schema) as writer:
            writer.write_batch(batch)
        path = self.folder / "flight.sock"
        command = [sys.executable, "-m", "bench.flight_server", str(path), str(stored)]
        self._server = Server(command, path)
        self._client = pa.flight.connect(f"grpc+unix://{path}")
        self._ticket = pa.flight.Ticket(b"")

    def call(self) -> Fields:
        table = self._client.do_get(self._ticket).read_all()
        fields: Fields = {}
        for name, (dtype, shape) in self._shapes.items():
            # A column's buffers: validity, offsets, data.
            _, _, data = table.column(name).chunk(0).buffers()
            flat = torch.frombuffer(memoryview(data), dtype=dtype, count=shape.numel())
            fields[name] = flat.view(shape)
        return fields

    def close(self) -> None:
        if self._server is None:
            return
        self._client.close()
        self._server.stop()
