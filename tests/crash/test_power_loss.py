"""Promises 1, 2, 6 and 9: does a power cut at any moment leave exactly what was answered?

As in test_killed_engine.py, but the process and its disks end together. The disks are real
filesystems in loop devices, one for L2's files and one for the catalog, and stop between two writes
to the device. Changes that were not synced are lost. Needs root and loop devices.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.conftest import CanLosePower
from tests.crash.programs import report_of


@pytest.mark.parametrize(
    ("kind", "cuts"),
    [
        pytest.param("ext4", 12, id="ext4-quick"),
        pytest.param("ext4", 1_000, id="ext4-long", marks=pytest.mark.slow),
        pytest.param("xfs", 1_000, id="xfs-long", marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(900)
def test_what_was_answered_survives_power_cuts(
    tmp_path: Path, can_lose_power: CanLosePower, kind: str, cuts: int
) -> None:
    can_lose_power(kind)
    report = report_of("kill_cycles", "--power", kind, "--cycles", cuts, "--seed", 3,
                       "--folder", tmp_path, within_s=890)  # fmt: skip
    assert report["killed"] == cuts
    assert report["answered"]["examined"] > cuts / 2
    assert report["answered"]["put"] > 0
    assert report["answered"]["change"] > 0
