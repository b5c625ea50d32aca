"""An engine for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.engine.house import EngineHouse


@pytest.fixture
async def closed_house(tmp_path: Path) -> AsyncIterator[EngineHouse]:
    """A house that the test opens itself, after it has changed the limits; the fixture ends it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cachesvc-test-") as runtime:
        house = EngineHouse(tmp_path, Path(runtime))
        yield house
        await house.end()


@pytest.fixture
async def house(closed_house: EngineHouse) -> EngineHouse:
    closed_house.open()
    return closed_house
