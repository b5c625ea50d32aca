"""Ours: AsyncCacheClient, with the rows of client_sync.py. Includes entering and leaving the
loop.
"""

from __future__ import annotations

from itertools import cycle

from bench.contender import Contender
from bench.daemon import ID, Daemon, check_first_gets, check_transport
from bench.loops import new_loop
from bench.turns import IDS, KEPT
from bench.workloads import Fields
from cachesvc_client import LocalOptions
from cachesvc_client.aio import AsyncCacheClient
from cachesvc_client.entry import AsyncEntry


class AioInline(Contender):
    title = "cachesvc, AsyncCacheClient, inline"
    options = LocalOptions(enabled=False)
    ids: tuple[str, ...] = (ID,)
    _daemon: Daemon | None = None

    def setup(self) -> None:
        self._loop = new_loop()
        self._daemon = Daemon(self.folder, len(self.ids))
        self._client = AsyncCacheClient(str(self._daemon.socket), local=self.options)
        self._daemon.store(self.workload, self.ids)
        self.call()
        check_transport(self._client.transport, local=self.options.enabled)

    def call(self) -> Fields:
        return self._loop.run_until_complete(self.fetch(ID))

    async def fetch(self, id: str) -> Fields:
        """Return the tensors stored under `id`."""
        if self.workload.name == "tryon":
            found = await self._client.get_tryon(id, id)
            return found.human.torch() | found.garment.torch() | found.text.torch()
        entry: AsyncEntry = await getattr(self._client, f"get_{self.workload.name}")(id)
        return entry.torch()

    def close(self) -> None:
        if self._daemon is None:
            return
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
        self._daemon.stop()


class AioLocal(AioInline):
    title = "cachesvc, AsyncCacheClient, local hit"
    options = LocalOptions()


class AioFirst(AioLocal):
    """Each call is for a key that the client has not kept: see `bench/turns.py`."""

    title = "cachesvc, AsyncCacheClient, first local Get (RPC + map)"
    options = LocalOptions(max_entries=KEPT)
    ids = IDS

    def setup(self) -> None:
        self._ids = cycle(self.ids)
        super().setup()

    def call(self) -> Fields:
        return self._loop.run_until_complete(self.fetch(next(self._ids)))

    def finish(self) -> None:
        check_first_gets(self._loop.run_until_complete(self._client.stats()))
