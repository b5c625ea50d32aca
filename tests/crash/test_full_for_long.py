"""Promises 1, 2 and 5: do disks that are full now and then damage anything, over many Puts?

See full_disks.py. Gets are served and invalidations answered throughout.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.programs import report_of
from tests.support.engine.mounts import small_filesystem


@pytest.mark.parametrize(
    "puts",
    [
        pytest.param(150, id="quick"),
        pytest.param(1_000, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
    ],
)
def test_puts_on_disks_that_are_full_now_and_then_damage_nothing(tmp_path: Path, puts: int) -> None:
    with small_filesystem(tmp_path / "probe", 1 << 20):
        pass  # skips if this process may not mount
    report = report_of("full_disks", "--puts", puts, "--folder", tmp_path, within_s=590)
    answered = report["answered"]
    assert answered["faults"] > puts / 50
    assert answered["change"] == -(-puts // 5)
    assert answered["put"] > 0
    assert answered["put"] + answered.get("put_unstored", 0) + answered["refused"] == puts
