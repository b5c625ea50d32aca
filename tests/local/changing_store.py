"""An S3 store whose objects change under their readers, and that answers slowly.

Every object is a pickled tensor of one number: its version at a moment between the request and the
answer, which are up to `latency_s` apart.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from cachesvc.codec.pickle_writer import encode_pickle
from cachesvc_format.blob import Tensor

WORDS = 8192  # 64 KB
_HEAD = (
    'HTTP/1.1 200 OK\r\nETag: "{version}"\r\nLast-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\n'
    "Content-Length: {length}\r\n\r\n"
)


def words_of_version(version: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.full(WORDS, version, dtype="<i8")


def _object(version: int) -> bytes:
    return encode_pickle(Tensor("I64", (WORDS,), words_of_version(version).tobytes()))


class ChangingStore:
    """`versions` is keyed by the last part of an object's key; a test may set it at any time."""

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._choose = random.Random(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="changing-store")
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.versions: dict[str, int] = {}
        self.reads = 0
        self.endpoint_url = ""

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
                writer.write(await self._answer(path.rpartition("/")[2]))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the daemon closed the connection
        finally:
            writer.close()
            del self._connections[task]

    async def _answer(self, name: str) -> bytes:
        await asyncio.sleep(self._choose.random() * self._latency_s / 2)
        version = self.versions[name]
        self.reads += 1
        await asyncio.sleep(self._choose.random() * self._latency_s / 2)
        data = _object(version)
        return _HEAD.format(version=version, length=len(data)).encode() + data

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)


@contextmanager
def running_changing_store(latency_s: float) -> Iterator[ChangingStore]:
    store = ChangingStore(latency_s)
    store.start()
    try:
        yield store
    finally:
        store.close()
