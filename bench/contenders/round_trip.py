"""A bare gRPC round trip with a small answer: the cost of any call to a daemon.

The answers hold no tensors. Both rows call the same grpc.aio server over a unix socket, one with
gRPC's synchronous stub, the other with grpc.aio's.
"""

from __future__ import annotations

import grpc

from bench.contender import Contender
from bench.echo_client import EchoClient, EchoServer
from bench.echo_server import PATH
from bench.workloads import Fields

# About the size of an answer that names a shared file.
_ANSWER = bytes(256)


class AioRoundTrip(EchoClient):
    title = "grpc.aio round trip, 256 bytes, grpc.aio stub"
    handler = "bytes"

    def message(self) -> bytes:
        return _ANSWER

    async def fetch(self, channel: grpc.aio.Channel) -> Fields:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        self.answer = await method(b"")
        return {}

    def check(self) -> None:
        self.call()
        if self.answer != _ANSWER:
            raise AssertionError(f"answered {self.answer!r}")


class SyncRoundTrip(Contender):
    title = "grpc.aio round trip, 256 bytes, sync stub"
    _server: EchoServer | None = None

    def setup(self) -> None:
        self._server = EchoServer(self.folder, _ANSWER, "bytes")
        self._channel = grpc.insecure_channel(self._server.target)

    def call(self) -> Fields:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(PATH)
        self.answer = method(b"")
        return {}

    def check(self) -> None:
        self.call()
        if self.answer != _ANSWER:
            raise AssertionError(f"answered {self.answer!r}")

    def close(self) -> None:
        if self._server is None:
            return
        self._channel.close()
        self._server.stop()
