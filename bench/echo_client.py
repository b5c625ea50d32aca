"""What the plain gRPC rows share: their server, an event loop and a channel."""

from __future__ import annotations

import sys
from abc import abstractmethod

import grpc

from bench.contender import Contender
from bench.loops import new_loop
from bench.servers import Server
from bench.workloads import Fields

_OPTIONS = (("grpc.max_receive_message_length", -1),)


class EchoClient(Contender):
    """A contender that calls `echo_server` over grpc.aio."""

    #: Which of the server's handlers answers.
    handler: str
    _server: Server | None = None

    def setup(self) -> None:
        message = self.folder / "message"
        message.write_bytes(self.message())
        path = self.folder / "echo.sock"
        command = [sys.executable, "-m", "bench.echo_server", str(path), str(message), self.handler]
        self._loop = new_loop()
        self._server = Server(command, path)
        self._loop.run_until_complete(self._connect(f"unix:{path}"))

    async def _connect(self, target: str) -> None:
        # Made on the loop that it belongs to.
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)

    def call(self) -> Fields:
        return self._loop.run_until_complete(self.fetch(self._channel))

    @abstractmethod
    def message(self) -> bytes:
        """Return what the server stores."""

    @abstractmethod
    async def fetch(self, channel: grpc.aio.Channel) -> Fields:
        """Ask the server and return the tensors."""

    def close(self) -> None:
        if self._server is None:
            return
        self._loop.run_until_complete(self._channel.close())
        self._loop.close()
        self._server.stop()
