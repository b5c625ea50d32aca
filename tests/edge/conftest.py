"""An engine for each test of the edges."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.engine.house import EngineHouse


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[EngineHouse]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as runtime:
        house = EngineHouse(tmp_path, Path(runtime))
        house.open()
        yield house
        await house.end()
