"""Ours: AsyncCacheClient, as the sync rows. Includes entering and leaving the event loop."""

from __future__ import annotations

from bench.contender import Contender
from bench.daemon import ID, Daemon, check_transport
from bench.loops import new_loop
from bench.workloads import Fields
from cachesvc_client import LocalOptions
from cachesvc_client.aio import AsyncCacheClient
from cachesvc_client.entry import AsyncEntry


class AioInline(Contender):
    title = "cachesvc, AsyncCacheClient, inline"
    local = False
    _daemon: Daemon | None = None

    def setup(self) -> None:
        self._loop = new_loop()
        self._daemon = Daemon(self.folder)
        options = LocalOptions(enabled=self.local)
        self._client = AsyncCacheClient(str(self._daemon.socket), local=options)
        self._daemon.store(self.workload)
        self.call()
        check_transport(self._client.transport, local=self.local)

    def call(self) -> Fields:
        return self._loop.run_until_complete(self._fetch())

    async def _fetch(self) -> Fields:
        if self.workload.name == "tryon":
            found = await self._client.get_tryon(ID, ID)
            return found.human.torch() | found.garment.torch() | found.text.torch()
        entry: AsyncEntry = await getattr(self._client, f"get_{self.workload.name}")(ID)
        return entry.torch()

    def close(self) -> None:
        if self._daemon is None:
            return
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
        self._daemon.stop()


class AioLocal(AioInline):
    title = "cachesvc, AsyncCacheClient, local delivery"
    local = True
