"""A cachesvc daemon in a process of its own that holds one workload in L1."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image

from bench.servers import Server
from bench.workloads import Workload
from cachesvc_client import CacheClient

ID = "bench"
_COMMAND = (sys.executable, "-m", "cachesvc", "serve")
_L1_BYTES = 64 << 20


class Daemon:
    """Started with defaults, except for where things lie; `socket` is where it listens."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "run" / "cachesvc.sock"
        self.socket.parent.mkdir(mode=0o750)
        settings = {
            "RUNTIME_DIR": folder / "run",
            "STATE_DIR": folder / "state",
            "L2__ROOT": folder / "l2",
            "L2__FREE_FLOOR_BYTES": 0,
            "L1__MAX_BYTES": _L1_BYTES,
            "ORIGIN__KIND": "directory",
            "ORIGIN__PATH": folder / "origin",
            "HTTP__LISTEN": "",
            "LOG_LEVEL": "warning",
        }
        (folder / "origin").mkdir()
        env = {f"CACHESVC_{name}": str(value) for name, value in settings.items()}
        self._server = Server(_COMMAND, self.socket, env)

    def store(self, workload: Workload) -> None:
        """Put the workload's entries."""
        with CacheClient(str(self.socket)) as client:
            for part, fields in workload.parts.items():
                values = {name: _storable(tensor) for name, tensor in fields.items()}
                getattr(client, f"put_{part}")(ID, **values)

    def stop(self) -> None:
        self._server.stop()


def _storable(tensor: torch.Tensor) -> torch.Tensor | Image.Image:
    return Image.fromarray(tensor.numpy()) if tensor.dtype is torch.uint8 else tensor


def check_transport(transport: str, *, local: bool) -> None:
    """Raise if a client gets its entries in another way than its row says."""
    if (transport == "shared_file") != local:
        raise RuntimeError(f"the client's transport is {transport!r}")
