"""How much private memory does the daemon keep after many fills?

Run as `python -m bench.memory`: fills persons from a directory origin, one Get each, and reads the
daemon's private memory (`Private_*` in smaps_rollup: L1's files are shared memory that it does not
map, and are counted apart).
"""

from __future__ import annotations

import os
import pickle
import re
import tempfile
from pathlib import Path

import torch
from PIL import Image

from bench import workloads
from bench.daemon import Daemon
from bench.worker import TMPFS
from cachesvc_client import CacheClient, LocalOptions

FILLS = 100
_PRIVATE = re.compile(r"^Private_\w+:\s+(\d+) kB$", re.MULTILINE)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cachesvc-bench-", dir=TMPFS) as folder:
        daemon = Daemon(Path(folder), entries=10)
        try:
            _store(Path(folder) / "origin")
            print(f"after the start: {_private_mb(daemon.pid):.0f} MB")
            with CacheClient(str(daemon.socket), local=LocalOptions()) as client:
                for number in range(FILLS):
                    client.get_human(f"person-{number}")
                stats = client.stats()
            assert stats.requests.origin_fills == FILLS
            print(
                f"after {FILLS} fills of a person: {_private_mb(daemon.pid):.0f} MB, beside "
                f"{stats.memory.size_bytes / 1e6:.0f} MB of entries in L1"
            )
        finally:
            daemon.stop()


def _store(origin: Path) -> None:
    """Write one person's objects, and link them as all the others'."""
    first = origin / "users" / "person-0" / "vton-cache" / "upper"
    first.mkdir(parents=True)
    for name, tensor in workloads.build("human").expected.items():
        if tensor.dtype is torch.uint8:
            Image.fromarray(tensor.numpy()).save(first / f"{name}.png")
        else:
            (first / f"{name}.pkl").write_bytes(pickle.dumps(tensor))
    for number in range(1, FILLS):
        other = origin / "users" / f"person-{number}" / "vton-cache" / "upper"
        other.mkdir(parents=True)
        for path in first.iterdir():
            os.link(path, other / path.name)


def _private_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in _PRIVATE.findall(text)) * 1024 / 1e6


if __name__ == "__main__":
    main()
