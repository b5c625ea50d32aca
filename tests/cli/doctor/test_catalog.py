"""Does doctor see a wrong clock, by the catalog's times, and a catalog from a snapshot?"""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from cachesvc.app.daemon import Daemon
from cachesvc.cli.doctor import catalog
from cachesvc.cli.doctor.findings import Level
from cachesvc.config import Settings
from tests.cli.doctor.conftest import Examine

DAY_S = 24 * 3600


def live(settings: dict[str, Any]) -> None:
    """Start and end a daemon on these directories."""

    async def once() -> None:
        daemon = Daemon(Settings(**settings))
        await daemon.start()
        await daemon.stop()

    asyncio.run(once())


@pytest.mark.parametrize("check", [catalog.check_clock, catalog.check_state])
def test_before_the_first_start_and_after_it_all_is_well(
    examine: Examine, settings: dict[str, Any], check: Any
) -> None:
    assert "no catalog" in examine(check).message
    live(settings)
    assert examine(check).level is Level.OK


def test_a_catalog_that_was_written_later_than_now_is_a_warning_with_the_difference(
    examine: Examine, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    live(settings)
    now_s = time.time()
    monkeypatch.setattr(catalog.time, "time", lambda: now_s - DAY_S)
    found = examine(catalog.check_clock)
    assert found.level is Level.WARNING
    assert "8640" in found.message
    assert "timedatectl" in found.fix


@pytest.mark.parametrize("known_by", ["root", "runtime directory"])
def test_a_catalog_that_a_snapshot_brought_back_is_a_warning(
    examine: Examine, settings: dict[str, Any], tmp_path: Path, known_by: str
) -> None:
    live(settings)
    state_dir = Path(settings["state_dir"])
    shutil.copytree(state_dir, tmp_path / "snapshot")
    live(settings)
    shutil.rmtree(state_dir)
    shutil.copytree(tmp_path / "snapshot", state_dir)
    forgets = {
        "root": Path(settings["runtime_dir"]) / "catalog",
        "runtime directory": Path(settings["l2"]["root"]) / ".catalog",
    }[known_by]
    forgets.unlink()
    found = examine(catalog.check_state)
    assert found.level is Level.WARNING
    assert "the next start sets the catalog aside" in found.message


def test_a_damaged_catalog_is_a_warning_and_no_traceback(
    examine: Examine, settings: dict[str, Any]
) -> None:
    live(settings)
    path = Path(settings["state_dir"]) / "catalog.sqlite"
    path.write_bytes(b"not a database" * 1000)
    for check in (catalog.check_clock, catalog.check_state):
        assert examine(check).level is Level.WARNING
