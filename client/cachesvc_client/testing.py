"""In-memory stand-ins for users' tests: no daemon, no socket, no origin.

They are the real clients over a dict: they build requests, write and read blobs and raise errors as
with a daemon, and pass the same contract tests. Two clients with one `MemoryService` share their
entries.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import NoReturn, TypeVar

import grpc

from cachesvc_client import _options
from cachesvc_client._arguments import check_settings
from cachesvc_client._credentials import TlsFiles
from cachesvc_client._local import LocalOptions
from cachesvc_client._memory_service import MemoryService, Refusal
from cachesvc_client._views import writable_view
from cachesvc_client.aio import AsyncCacheClient
from cachesvc_client.client import CacheClient
from cachesvc_client.errors import error_of_status
from cachesvc_client.requests import Call, Upload

__all__ = ["InMemoryCacheClient", "AsyncInMemoryCacheClient", "MemoryService"]

A = TypeVar("A")
# Never used: no call goes there.
_NOBODY = "unix:/dev/null/cachesvc.sock"
_STAYS = (
    "an in-memory client cannot be pickled or copied: its entries are in this process; make one "
    "over the same MemoryService here, or one with its own entries there"
)
_MAY_BE_NONE = ("service", "target", "credentials", "tls", "token", "daemon_user")


class InMemoryCacheClient(CacheClient):
    """As `CacheClient`. A Get of a key that was not put raises NotCached.

    `service.fail(error)` lets calls fail. The arguments of `CacheClient` are taken, and checked,
    but nothing is opened or connected.
    """

    def __init__(
        self,
        service: MemoryService | None = None,
        *,
        target: str | None = None,
        timeout_s: float = _options.DEFAULT_TIMEOUT_S,
        wait_s: float = _options.DEFAULT_WAIT_S,
        credentials: grpc.ChannelCredentials | None = None,
        tls: TlsFiles | None = None,
        token: str | None = None,
        daemon_user: str | int | None = None,
        local: LocalOptions = LocalOptions(enabled=False),  # noqa: B008 - frozen
    ) -> None:
        check_settings(locals(), none=_MAY_BE_NONE)
        super().__init__(_NOBODY, timeout_s=timeout_s, local=LocalOptions(enabled=False))
        self._service = service or MemoryService()
        self._link = _MemoryLink(self._service)
        self._admin_path = None  # never use a real daemon's socket

    def __getstate__(self) -> NoReturn:
        raise TypeError(_STAYS)

    def __repr__(self) -> str:
        return f"<InMemoryCacheClient over {self._service!r}>"


class AsyncInMemoryCacheClient(AsyncCacheClient):
    """As `AsyncCacheClient`, with what `InMemoryCacheClient` has beside it."""

    def __init__(
        self,
        service: MemoryService | None = None,
        *,
        target: str | None = None,
        timeout_s: float = _options.DEFAULT_TIMEOUT_S,
        wait_s: float = _options.DEFAULT_WAIT_S,
        credentials: grpc.ChannelCredentials | None = None,
        tls: TlsFiles | None = None,
        token: str | None = None,
        daemon_user: str | int | None = None,
        local: LocalOptions = LocalOptions(enabled=False),  # noqa: B008 - frozen
    ) -> None:
        check_settings(locals(), none=_MAY_BE_NONE)
        super().__init__(_NOBODY, timeout_s=timeout_s, local=LocalOptions(enabled=False))
        self._service = service or MemoryService()
        self._link = _AsyncMemoryLink(_MemoryLink(self._service))
        self._admin_path = None

    def __getstate__(self) -> NoReturn:
        raise TypeError(_STAYS)

    def __repr__(self) -> str:
        return f"<AsyncInMemoryCacheClient over {self._service!r}>"


class _MemoryLink:
    def __init__(self, service: MemoryService) -> None:
        self._service = service
        self._closed = False

    def ask(self, call: Call[A], timeout_s: float) -> A:
        self._begin(call)
        try:
            answer = self._service.answer(call.method, call.request)
        except Refusal as refusal:
            _raise(refusal, call)
        return call.read(writable_view(answer))

    def collect(self, call: Call[A], timeout_s: float) -> A:
        *_, last = self.follow(call, timeout_s)
        return last

    def follow(self, call: Call[A], timeout_s: float) -> Generator[A, None, None]:
        self._begin(call)
        try:
            for message in self._service.stream(call.method, call.request):
                yield call.read(memoryview(message))
        except Refusal as refusal:
            _raise(refusal, call)

    def send(self, upload: Upload[A], timeout_s: float) -> A:
        self._begin(upload.call)
        try:
            answer = self._service.put(upload.messages())
        except Refusal as refusal:
            _raise(refusal, upload.call)
        return upload.call.read(memoryview(answer))

    def close(self) -> None:
        self._closed = True

    def _begin(self, call: Call[A]) -> None:
        if self._closed:
            raise RuntimeError("this client is closed")
        self._service.failures.raise_planned(call)


class _AsyncMemoryLink:
    def __init__(self, link: _MemoryLink) -> None:
        self._link = link

    async def ask(self, call: Call[A], timeout_s: float) -> A:
        return self._link.ask(call, timeout_s)

    async def collect(self, call: Call[A], timeout_s: float) -> A:
        return self._link.collect(call, timeout_s)

    async def follow(self, call: Call[A], timeout_s: float) -> AsyncGenerator[A, None]:
        for message in self._link.follow(call, timeout_s):
            yield message

    async def send(self, upload: Upload[A], timeout_s: float) -> A:
        return self._link.send(upload, timeout_s)

    async def close(self) -> None:
        self._link.close()


def _raise(refusal: Refusal, call: Call[A]) -> NoReturn:
    raise error_of_status(
        refusal.code, refusal.message, refusal.metadata, call.asked_for
    ) from refusal
