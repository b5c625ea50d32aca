"""Ours: CacheClient and a real daemon, served from L1: inline over the unix socket, or by local
hits.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from itertools import cycle

import torch

from bench.contender import Contender
from bench.daemon import ID, Daemon, check_first_gets, check_transport
from bench.turns import IDS, KEPT
from bench.workloads import Fields
from cachesvc_client import CacheClient, LocalOptions
from cachesvc_client.entry import Entry


class SyncInline(Contender):
    title = "cachesvc, CacheClient, inline"
    options = LocalOptions(enabled=False)
    ids: tuple[str, ...] = (ID,)
    _daemon: Daemon | None = None

    def setup(self) -> None:
        self._daemon = Daemon(self.folder, len(self.ids))
        self._client = CacheClient(str(self._daemon.socket), local=self.options)
        self._daemon.store(self.workload, self.ids)
        self.call()
        check_transport(self._client.transport, local=self.options.enabled)

    def call(self) -> Mapping[str, torch.Tensor]:
        return self.fetch(ID)

    def fetch(self, id: str) -> Fields:
        """Return the tensors stored under `id`."""
        if self.workload.name == "tryon":
            found = self._client.get_tryon(id, id)
            return found.human.torch() | found.garment.torch() | found.text.torch()
        entry: Entry = getattr(self._client, f"get_{self.workload.name}")(id)
        return entry.torch()

    def close(self) -> None:
        if self._daemon is None:
            return
        self._client.close()
        self._daemon.stop()


class SyncLocal(SyncInline):
    title = "cachesvc, local hit"
    options = LocalOptions()


class SyncLocalShared(SyncLocal):
    """For callers that promise not to write: one mapping, whose pages are faulted in once."""

    title = "cachesvc, local hit, share_mappings"
    options = LocalOptions(share_mappings=True)


class SyncUntouched(SyncLocal):
    """The client has valid bytes, and makes no tensor of them."""

    title = "cachesvc, local hit, no tensor made"

    def call(self) -> Mapping[str, torch.Tensor]:
        if self.workload.name == "tryon":
            found = self._client.get_tryon(ID, ID)
            return ChainMap(found.human, found.garment, found.text)  # type: ignore[arg-type] # only read
        entry: Entry = getattr(self._client, f"get_{self.workload.name}")(ID)
        return entry


class SyncFirst(SyncLocal):
    """Each call is for a key that the client has not kept: see `bench/turns.py`."""

    title = "cachesvc, CacheClient, first local Get (RPC + map)"
    options = LocalOptions(max_entries=KEPT)
    ids = IDS

    def setup(self) -> None:
        self._ids = cycle(self.ids)
        super().setup()

    def call(self) -> Mapping[str, torch.Tensor]:
        return self.fetch(next(self._ids))

    def finish(self) -> None:
        check_first_gets(self._client.stats())
