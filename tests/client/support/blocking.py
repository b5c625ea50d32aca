"""Runs tests written for the synchronous client over the asyncio one."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from cachesvc_client import AsyncCacheClient, AsyncEntry, TryOn


class Blocking:
    """Runs the methods of an `AsyncCacheClient` on a loop of its own."""

    def __init__(self, client: AsyncCacheClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def close(self) -> None:
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def prefetch(self, tryons: Any) -> Future[Any]:
        async def follow() -> Any:
            return await self._client.prefetch(tryons)

        return asyncio.run_coroutine_threadsafe(follow(), self._loop)

    def warm(self, *args: Any, **kwargs: Any) -> list[Any]:
        async def follow() -> list[Any]:
            return [step async for step in self._client.warm(*args, **kwargs)]

        progress: list[Any] = self._run(follow())
        return progress

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        assert inspect.iscoroutinefunction(method)
        return lambda *args, **kwargs: self._wrapped(self._run(method(*args, **kwargs)))

    def _wrapped(self, value: Any) -> Any:
        if isinstance(value, AsyncEntry):
            return _BlockingEntry(value, self)
        if isinstance(value, TryOn):
            value.human = _BlockingEntry(value.human, self)
        return value

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)


class _BlockingEntry:
    def __init__(self, entry: AsyncEntry, owner: Blocking) -> None:
        self._entry = entry
        self._owner = owner

    def is_current(self) -> bool:
        return bool(self._owner._run(self._entry.is_current()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entry, name)

    def __getitem__(self, name: str) -> Any:
        return self._entry[name]
