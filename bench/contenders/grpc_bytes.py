"""What grpc.aio costs by itself: bytes in, the same bytes out, views with the layout known.

No cache behind the server, no contract before the client: what our rows take beyond
this one is ours.
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
        # torch says once that bytes cannot be written to; nobody writes here.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")

    def message(self) -> bytes:
        packed, self._views = layout.pack(self.workload.expected)
        return packed

    async def fetch(self, channel: grpc.aio.Channel) -> Fields:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        return layout.tensors(await method(b""), self._views)
