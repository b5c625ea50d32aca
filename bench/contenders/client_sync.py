"""Ours: CacheClient and a real daemon, served from L1: inline over the unix socket, or local."""

from __future__ import annotations

from bench.contender import Contender
from bench.daemon import ID, Daemon, check_transport
from bench.workloads import Fields
from cachesvc_client import CacheClient, LocalOptions
from cachesvc_client.entry import Entry


class SyncInline(Contender):
    title = "cachesvc, CacheClient, inline"
    local = False
    _daemon: Daemon | None = None

    def setup(self) -> None:
        self._daemon = Daemon(self.folder)
        options = LocalOptions(enabled=self.local)
        self._client = CacheClient(str(self._daemon.socket), local=options)
        self._daemon.store(self.workload)
        self.call()
        check_transport(self._client.transport, local=self.local)

    def call(self) -> Fields:
        if self.workload.name == "tryon":
            found = self._client.get_tryon(ID, ID)
            return found.human.torch() | found.garment.torch() | found.text.torch()
        entry: Entry = getattr(self._client, f"get_{self.workload.name}")(ID)
        return entry.torch()

    def close(self) -> None:
        if self._daemon is None:
            return
        self._client.close()
        self._daemon.stop()


class SyncLocal(SyncInline):
    title = "cachesvc, CacheClient, local delivery"
    local = True
