"""How is a fill stopped exactly between S3's answer and the daemon's reading of it?

By a TCP proxy in front of a real S3 server. While the proxy holds, S3's answers stay in it: the old
bytes are on their way, and the test acts meanwhile.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 18
_WITHIN_S = 20.0


class HeldStore:
    """Forwards bytes unchanged; `hold` keeps answers back until `release`."""

    def __init__(self, endpoint_url: str) -> None:
        upstream = urlsplit(endpoint_url)
        assert upstream.hostname is not None
        assert upstream.port is not None
        self._upstream = (upstream.hostname, upstream.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = threading.Event()
        self._open.set()
        self._held = threading.Semaphore(0)
        # S3's answers so far, by connection.
        self.answers: list[bytearray] = []
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, name="held-store")]
        self._threads[0].start()

    def hold(self) -> None:
        self._open.clear()

    def wait_until_held(self, answers: int) -> None:
        """Return when that many more answers are held."""
        for _ in range(answers):
            assert self._held.acquire(timeout=_WITHIN_S), "S3 was not asked"

    def release(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.release()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the listener was closed
                return
            self._sockets.append(client)
            try:
                server = socket.create_connection(self._upstream)
            except OSError:  # S3 is down: its caller sees a connection that breaks
                client.close()
                continue
            self._sockets.append(server)
            pumps = (
                threading.Thread(target=self._forward, args=(client, server)),
                threading.Thread(target=self._forward_answers, args=(server, client)),
            )
            self._threads += pumps
            for pump in pumps:
                pump.start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _forward_answers(self, source: socket.socket, target: socket.socket) -> None:
        answers = bytearray()
        self.answers.append(answers)
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                answers += data
                if not self._open.is_set():
                    self._held.release()
                    self._open.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def running_held_store(endpoint_url: str) -> Iterator[HeldStore]:
    store = HeldStore(endpoint_url)
    try:
        yield store
    finally:
        store.close()
