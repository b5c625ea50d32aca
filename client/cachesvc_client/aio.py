"""The asyncio client: the methods of `CacheClient`, awaited.

See `cachesvc_client.client` for what each argument means and each call raises. If
a call is cancelled the daemon is told, and nothing is held.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from cachesvc_client import _options, answers, requests
from cachesvc_client._aio_link import AioLink, GrpcAioLink
from cachesvc_client._credentials import TlsFiles
from cachesvc_client._local import REPORT_TIMEOUT_S, LocalDelivery, LocalOptions, needed_ns
from cachesvc_client._opened import Opened, opened_inline
from cachesvc_client._route import Route, route_to
from cachesvc_client._target import admin_socket, resolve, runtime_directory
from cachesvc_client._trust import trust_of
from cachesvc_client.answers import (
    EntryInfo,
    EntryKey,
    Inspection,
    Invalidated,
    Received,
    ReceivedTryOn,
    WarmProgress,
    WarmSummary,
)
from cachesvc_client.entry import AsyncEntry, TryOn
from cachesvc_client.errors import CacheServiceError, Unsupported
from cachesvc_client.requests import PutOptions, TryOnKey

if TYPE_CHECKING:
    from types import TracebackType

    from PIL import Image

    from cachesvc_proto.v1.cache_pb2 import StatsResponse


A = TypeVar("A")


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
        tls: TlsFiles | None = None,
        token: str | None = None,
        daemon_user: str | int | None = None,
        local: LocalOptions = LocalOptions(),  # noqa: B008 - frozen
    ) -> None:
        self._timeout_s = timeout_s
        address = resolve(target, os.environ)
        trust = trust_of(daemon_user, os.environ)
        route = route_to(address, trust, credentials, tls, token, os.environ)
        self._link: AioLink = GrpcAioLink(route, wait_s)
        self._admin_path = admin_socket(target, os.environ)
        self._admin: AioLink | None = None
        self._wait_s = wait_s
        self._trust = trust
        directory, only_there = runtime_directory(address, os.environ)
        self._reporting_loop: asyncio.AbstractEventLoop | None = None
        self._reports: set[asyncio.Task[Any]] = set()
        self._local = LocalDelivery(
            directory, local, self._report_from_thread, only_there=only_there, trust=trust
        )

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
        await self._report()
        # The upkeep began these. One that begins later finds no hits.
        loop = asyncio.get_running_loop()
        begun = [task for task in tuple(self._reports) if task.get_loop() is loop]
        if begun:
            await asyncio.wait(begun)
        self._local.close()
        await self._link.close()
        if self._admin is not None:
            await self._admin.close()

    @property
    def transport(self) -> str:
        """As `CacheClient.transport`."""
        return self._local.transport

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
        hit = self._local.hit(
            (requests.HUMAN_NAMESPACES.get(category, ""), user_id),
            needed_ns(origin_after),
            kind_version,
        )
        if hit is not None:
            return self._entry(hit)
        ask = partial(requests.get_human, user_id, category, origin_after, kind_version)
        return self._entry(await self._fetch(ask, timeout_s))

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
        hit = self._local.hit(("garment", clothing_id), needed_ns(origin_after), kind_version)
        if hit is not None:
            return self._entry(hit)
        ask = partial(requests.get_garment, clothing_id, owner_id, origin_after, kind_version)
        return self._entry(await self._fetch(ask, timeout_s))

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
        hit = self._local.hit(("text", clothing_id), needed_ns(origin_after), kind_version)
        if hit is not None:
            return self._entry(hit)
        ask = partial(requests.get_text, clothing_id, owner_id, origin_after, kind_version)
        return self._entry(await self._fetch(ask, timeout_s))

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
        hits = self._local.hit_tryon(key, needed_ns(origin_after), kind_versions)
        if hits is None:
            ask = partial(requests.get_tryon, key, origin_after, kind_versions)
            hits = await self._fetch_tryon(ask, timeout_s)
        return TryOn(*(self._entry(part) for part in hits))

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
        return self._entry(opened_inline(streamed.finished()))

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
        link = self._purging_link() if namespace or everything else self._link
        return await link.ask(call, self._limit(timeout_s))

    def _purging_link(self) -> AioLink:
        """Return the way of the daemon's own user, where the socket's group may not purge."""
        path = self._admin_path
        if path is None or not os.access(path, os.W_OK):
            return self._link
        if self._admin is None:
            self._admin = GrpcAioLink(Route(f"unix:{path}", self._trust), self._wait_s)
        return self._admin

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

    # ---- getting what is not at hand

    async def _fetch(self, ask: requests.Ask[Received], timeout_s: float | None) -> Opened:
        (entry,) = await self._ask_until_opened(ask, lambda received: (received,), timeout_s)
        return entry

    async def _fetch_tryon(
        self, ask: requests.Ask[ReceivedTryOn], timeout_s: float | None
    ) -> tuple[Opened, ...]:
        return await self._ask_until_opened(ask, lambda received: received, timeout_s)

    async def _ask_until_opened(
        self,
        ask: requests.Ask[A],
        parts_of: Callable[[A], tuple[Received, ...]],
        timeout_s: float | None,
    ) -> tuple[Opened, ...]:
        """As `CacheClient._ask_until_opened`."""
        ends_s = time.monotonic() + self._limit(timeout_s)
        self._reporting_loop = asyncio.get_running_loop()
        await self._attach(ends_s)
        asked_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        shared = self._local.is_attached
        answer = await self._link.ask(ask(shared=shared), ends_s - time.monotonic())
        entries = self._local.accept_all(parts_of(answer), asked_ns)
        if entries is None:
            answer = await self._link.ask(ask(shared=False), ends_s - time.monotonic())
            entries = tuple(opened_inline(part) for part in parts_of(answer))
        return entries

    async def _attach(self, ends_s: float) -> None:
        now_s = time.monotonic()
        if not self._local.wants_attach(now_s) or self._local.attach_without_asking(now_s):
            return
        try:
            attachment = await self._link.ask(requests.attach(), ends_s - now_s)
        except Unsupported:
            self._local.attach_where(None, now_s)
        else:
            self._local.attach_where(attachment, now_s)

    def _report_from_thread(self) -> None:
        """Have the loop that was last used report, if it still runs; else the hits wait."""
        loop = self._reporting_loop
        if loop is None or not loop.is_running():
            return
        reporting = self._report_from_loop()
        try:
            asyncio.run_coroutine_threadsafe(reporting, loop)
        except RuntimeError:  # it was closed in this moment
            reporting.close()

    async def _report_from_loop(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._reports.add(task)
        try:
            await self._report()
        finally:
            self._reports.discard(task)

    async def _report(self) -> None:
        # In the loop, and not in the upkeep's thread, or a `close` in between found none and
        # closed the way: the report would then come too late.
        hits = self._local.take_hits()
        # A lost report costs some recency, which is not worth an error or a wait.
        with contextlib.suppress(CacheServiceError, RuntimeError, ValueError):
            for report in requests.report_hits(hits):
                await self._link.ask(report, REPORT_TIMEOUT_S)

    def _entry(self, opened: Opened) -> AsyncEntry:
        return AsyncEntry(opened, self._is_current)

    async def _is_current(self, info: EntryInfo) -> bool:
        known = self._local.is_current((info.key.namespace, info.key.id), info.generation)
        if known is not None:
            return known
        return answers.is_held(await self.inspect(*info.key), info.generation)

    def _limit(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else timeout_s
