"""The asyncio client: the methods of `CacheClient`, awaited.

See `cachesvc_client.client` for what each argument means and each call raises. If
a call is cancelled the daemon is told, and nothing is held.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc

from cachesvc_client import _options, answers, requests
from cachesvc_client._aio_link import AioLink, GrpcAioLink
from cachesvc_client._target import resolve
from cachesvc_client.answers import (
    EntryInfo,
    EntryKey,
    Inspection,
    Invalidated,
    Received,
    WarmProgress,
    WarmSummary,
)
from cachesvc_client.entry import AsyncEntry, TryOn
from cachesvc_client.requests import PutOptions, TryOnKey

if TYPE_CHECKING:
    from types import TracebackType

    from PIL import Image

    from cachesvc_proto.v1.cache_pb2 import StatsResponse


class AsyncCacheClient:
    """As `CacheClient`. Each event loop that uses it gets a connection of its own.

    `close()` closes that of the running loop. Do not fork after its first call: in the
    child it, and `CacheClient`, raise RuntimeError.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        timeout_s: float = _options.DEFAULT_TIMEOUT_S,
        wait_s: float = _options.DEFAULT_WAIT_S,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._link: AioLink = GrpcAioLink(resolve(target, os.environ), wait_s, credentials)

    async def __aenter__(self) -> AsyncCacheClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """As `CacheClient.close`."""
        await self._link.close()

    async def get_human(
        self,
        user_id: str,
        category: str = "upper_body",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> AsyncEntry:
        """As `CacheClient.get_human`."""
        call = requests.get_human(user_id, category, origin_after, kind_version)
        return self._entry(await self._link.ask(call, self._limit(timeout_s)))

    async def get_garment(
        self,
        clothing_id: str,
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> AsyncEntry:
        """As `CacheClient.get_garment`."""
        call = requests.get_garment(clothing_id, owner_id, origin_after, kind_version)
        return self._entry(await self._link.ask(call, self._limit(timeout_s)))

    async def get_text(
        self,
        clothing_id: str,
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_version: str = "",
        timeout_s: float | None = None,
    ) -> AsyncEntry:
        """As `CacheClient.get_text`."""
        call = requests.get_text(clothing_id, owner_id, origin_after, kind_version)
        return self._entry(await self._link.ask(call, self._limit(timeout_s)))

    async def get_tryon(
        self,
        user_id: str,
        clothing_id: str,
        category: str = "upper_body",
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        kind_versions: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> TryOn[AsyncEntry]:
        """As `CacheClient.get_tryon`."""
        key = TryOnKey(user_id, clothing_id, category, owner_id)
        call = requests.get_tryon(key, origin_after, kind_versions)
        parts = await self._link.ask(call, self._limit(timeout_s))
        return TryOn(*(self._entry(part) for part in parts))

    async def get(
        self,
        namespace: str,
        id: str,
        owner_id: str = "",
        *,
        origin_after: datetime | None = None,
        timeout_s: float | None = None,
    ) -> AsyncEntry:
        """As `CacheClient.get`."""
        call = requests.get(namespace, id, owner_id, origin_after)
        streamed = await self._link.collect(call, self._limit(timeout_s))
        return self._entry(streamed.finished())

    async def put_human(
        self,
        user_id: str,
        category: str = "upper_body",
        *,
        human_img: Image.Image,
        mask: Image.Image,
        mask_gray: Image.Image,
        pose_tensor: Any,
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        owner_id: str = "",
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """As `CacheClient.put_human`."""
        images = {"human_img": human_img, "mask": mask, "mask_gray": mask_gray}
        options = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.put_human(user_id, category, images, pose_tensor, options)
        return await self._link.send(upload, self._limit(timeout_s))

    async def put_garment(
        self,
        clothing_id: str,
        *,
        garm_img: Image.Image,
        garm_tensor: Any,
        owner_id: str = "",
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """As `CacheClient.put_garment`."""
        options = PutOptions(owner_id, as_of, ttl, persist)
        upload = requests.put_garment(clothing_id, garm_img, garm_tensor, options)
        return await self._link.send(upload, self._limit(timeout_s))

    async def put_text(
        self,
        clothing_id: str,
        *,
        prompt_embeds: Any,
        negative_prompt_embeds: Any,
        pooled_prompt_embeds: Any,
        negative_pooled_prompt_embeds: Any,
        prompt_embeds_c: Any,
        owner_id: str = "",
        as_of: datetime | None = None,
        ttl: timedelta | None = None,
        persist: bool = False,
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """As `CacheClient.put_text`."""
        fields = {
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "pooled_prompt_embeds": pooled_prompt_embeds,
            "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
            "prompt_embeds_c": prompt_embeds_c,
        }
        options = PutOptions(owner_id, as_of, ttl, persist)
        return await self.put("text", clothing_id, fields, options=options, timeout_s=timeout_s)

    async def put(
        self,
        namespace: str,
        id: str,
        fields: Mapping[str, Any],
        *,
        options: PutOptions = PutOptions(),  # noqa: B008 - a tuple of constants
        timeout_s: float | None = None,
    ) -> EntryInfo:
        """As `CacheClient.put`."""
        upload = requests.put(namespace, id, fields, options)
        return await self._link.send(upload, self._limit(timeout_s))

    async def invalidate(
        self,
        *,
        user_id: str | None = None,
        clothing_id: str | None = None,
        owner_id: str | None = None,
        namespace: str | None = None,
        key: EntryKey | tuple[str, str] | None = None,
        everything: bool = False,
        changed_at: datetime | None = None,
        erase: bool = False,
        timeout_s: float | None = None,
    ) -> Invalidated:
        """As `CacheClient.invalidate`."""
        call = requests.invalidate(
            {
                "user_id": user_id,
                "clothing_id": clothing_id,
                "owner_id": owner_id,
                "namespace": namespace,
                "key": key,
                "everything": everything,
            },
            changed_at,
            erase,
        )
        return await self._link.ask(call, self._limit(timeout_s))

    def warm(
        self,
        user_id: str = "",
        *,
        categories: Iterable[str] = (),
        garments: Iterable[str | tuple[str, str]] = (),
        timeout_s: float = _options.DEFAULT_WARM_TIMEOUT_S,
    ) -> AsyncGenerator[WarmProgress, None]:
        """As `CacheClient.warm`."""
        return self._link.follow(requests.warm(user_id, categories, garments), timeout_s)

    def prefetch(
        self,
        tryons: Iterable[TryOnKey | tuple[str, ...]],
        *,
        timeout_s: float = _options.DEFAULT_WARM_TIMEOUT_S,
    ) -> asyncio.Task[WarmSummary]:
        """As `CacheClient.prefetch`; needs a running loop. Keep the task, or asyncio may drop it.

        Cancelling the task stops following; what the daemon has begun goes on.
        """
        calls = requests.warm_tryons(tryons)

        async def follow_all() -> WarmSummary:
            tally = answers.WarmTally()
            # One person after the other: the daemon limits how many warm-ups run at once.
            for number, call in enumerate(calls):
                async for progress in self._link.follow(call, timeout_s):
                    tally.add(number, progress)
            return tally.summary()

        return asyncio.create_task(follow_all(), name="cachesvc-prefetch")

    async def inspect(
        self, namespace: str, id: str, *, timeout_s: float | None = None
    ) -> Inspection:
        """As `CacheClient.inspect`."""
        return await self._link.ask(requests.inspect(namespace, id), self._limit(timeout_s))

    async def stats(self, *, timeout_s: float | None = None) -> StatsResponse:
        """As `CacheClient.stats`."""
        return await self._link.ask(requests.stats(), self._limit(timeout_s))

    def _entry(self, received: Received) -> AsyncEntry:
        return AsyncEntry(received, self._is_current)

    async def _is_current(self, info: EntryInfo) -> bool:
        return answers.is_held(await self.inspect(*info.key), info.generation)

    def _limit(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s
