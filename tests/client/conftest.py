"""Servers for the client's tests. `tests/conftest.py` has real daemons."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc_client import CacheClient
from tests.client.support.scripted_server import ScriptedServer


@pytest.fixture
def socket() -> Iterator[Path]:
    # Not tmp_path: a socket's path may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cc-") as folder:
        yield Path(folder) / "s.sock"


@pytest.fixture
def server(socket: Path) -> Iterator[ScriptedServer]:
    with ScriptedServer(socket) as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[CacheClient]:
    with CacheClient(server.target) as connected:
        yield connected
