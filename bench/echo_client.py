"""The parts that the plain gRPC rows share: their server, an event loop and a channel."""

from __future__ import annotations

import sys
from abc import abstractmethod
from pathlib import Path

import grpc

from bench.contender import Contender
from bench.loops import new_loop
from bench.servers import Server
from bench.workloads import Fields

_OPTIONS = (("grpc.max_receive_message_length", -1),)


class EchoServer(Server):
    """`echo_server` in a process of its own; `target` is its address."""

    def __init__(self, folder: Path, message: bytes, handler: str) -> None:
        stored = folder / "message"
        stored.write_bytes(message)
        path = folder / "echo.sock"
        self.target = f"unix:{path}"
        super().__init__(
            [sys.executable, "-m", "bench.echo_server", str(path), str(stored), handler], path
        )


class EchoClient(Contender):
    """A contender that calls `echo_server` over grpc.aio."""

    #: Which of the server's handlers answers.
    handler: str
    _server: EchoServer | None = None

    def setup(self) -> None:
        self._loop = new_loop()
        self._server = EchoServer(self.folder, self.message(), self.handler)
        self._loop.run_until_complete(self._connect(self._server.target))

    async def _connect(self, target: str) -> None:
        # Made on the loop that it belongs to.
        self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)

    def call(self) -> Fields:
        return self._loop.run_until_complete(self.fetch(self._channel))

    @abstractmethod
    def message(self) -> bytes:
        """Return the message that the server stores."""

    @abstractmethod
    async def fetch(self, channel: grpc.aio.Channel) -> Fields:
        """Call the server and return the tensors."""

    def close(self) -> None:
        if self._server is None:
            return
        self._loop.run_until_complete(self._channel.close())
        self._loop.close()
        self._server.stop()
