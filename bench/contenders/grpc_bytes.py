"""The cost of grpc.aio alone: bytes in, the same bytes out, views with the layout known.

There is no cache in the server, and no contract in the client: the time that our rows take beyond
this row is ours.
"""

from __future__ import annotations

import warnings

import grpc

from bench import layout
from bench.echo_client import EchoClient
from bench.echo_server import PATH
from bench.workloads import Fields


class GrpcBytes(EchoClient):
    title = "grpc.aio, bytes off protobuf, views, layout known"
    handler = "bytes"

    def setup(self) -> None:
        super().setup()
        # torch warns once that the bytes are read-only; no code writes to them here.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")

    def message(self) -> bytes:
        packed, self._views = layout.pack(self.workload.expected)
        return packed

    async def fetch(self, channel: grpc.aio.Channel) -> Fields:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        return layout.tensors(await method(b""), self._views)
