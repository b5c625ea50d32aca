"""A cachesvc daemon in a process of its own that holds one workload in L1."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image

from bench.servers import Server
from bench.workloads import Workload
from cachesvc_client import CacheClient
from cachesvc_proto.v1.cache_pb2 import StatsResponse

ID = "bench"
_COMMAND = (sys.executable, "-m", "cachesvc", "serve")
_L1_BYTES_PER_TRYON = 32 << 20


class Daemon:
    """A daemon with default settings, except for its paths and the size of its L1.

    It listens at `socket`. `entries` is the number of each kind's entries that fit into L1.
    """

    def __init__(self, folder: Path, entries: int = 1) -> None:
        self.socket = folder / "run" / "cachesvc.sock"
        self.socket.parent.mkdir(mode=0o750)
        settings = {
            "RUNTIME_DIR": folder / "run",
            "STATE_DIR": folder / "state",
            "L2__ROOT": folder / "l2",
            "L2__FREE_FLOOR_BYTES": 0,
            "L1__MAX_BYTES": _L1_BYTES_PER_TRYON * (entries + 1),
            **{f"KINDS__{kind}__MAX_ENTRIES": entries for kind in ("HUMAN", "GARMENT", "TEXT")},
            "ORIGIN__KIND": "directory",
            "ORIGIN__PATH": folder / "origin",
            "HTTP__LISTEN": "",
            "LOG_LEVEL": "warning",
        }
        (folder / "origin").mkdir()
        env = {f"CACHESVC_{name}": str(value) for name, value in settings.items()}
        self._server = Server(_COMMAND, self.socket, env)
        self.pid = self._server.pid

    def store(self, workload: Workload, ids: Iterable[str] = (ID,)) -> None:
        """Put the workload's entries under each id."""
        with CacheClient(str(self.socket)) as client:
            for part, fields in workload.parts.items():
                values = {name: _storable(tensor) for name, tensor in fields.items()}
                for id in ids:
                    getattr(client, f"put_{part}")(id, **values)

    def stop(self) -> None:
        self._server.stop()


def _storable(tensor: torch.Tensor) -> torch.Tensor | Image.Image:
    return Image.fromarray(tensor.numpy()) if tensor.dtype is torch.uint8 else tensor


def check_transport(transport: str, *, local: bool) -> None:
    """Raise if a client gets its entries by another delivery than its row says."""
    if (transport == "shared_file") != local:
        raise RuntimeError(f"the client's transport is {transport!r}")


def check_first_gets(stats: StatsResponse) -> None:
    """Raise if a Get made no call although its row says so, or was not a hit of L1."""
    requests = stats.requests
    if requests.local_hits or requests.disk_hits or requests.origin_fills:
        raise RuntimeError(f"not every Get was a hit in L1, asked for by a call: {requests}")
