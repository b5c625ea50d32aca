"""Promises 1, 2, 6 and 9: does kill -9 at any moment leave what was answered, and nothing else?

An engine on real directories, with concurrent writers and a reader, is killed at random moments,
also while it starts. Each successor finds the answered Puts of its predecessor whole, no entry that
was invalidated or replaced, no litter, and totals that add up.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.crash.programs import report_of


@pytest.mark.parametrize("seed", [1])
def test_what_was_answered_survives_kills_at_random_moments(tmp_path: Path, seed: int) -> None:
    report = report_of("kill_cycles", "--cycles", 60, "--minutes", 0.6, "--seed", seed,
                       "--folder", tmp_path, within_s=55)  # fmt: skip
    assert report["killed"] > 20
    assert report["answered"]["examined"] > report["killed"] / 2
    assert report["answered"]["put"] > 0
    assert report["answered"]["change"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("cycles", "on"), [(1_000, "disk"), (10_000, "tmpfs")])
def test_what_was_answered_survives_thousands_of_kills(
    tmp_path: Path, cycles: int, on: str
) -> None:
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as memory:
        folder = tmp_path if on == "disk" else memory
        report = report_of("kill_cycles", "--cycles", cycles, "--seed", 2, "--folder", folder,
                           within_s=1790)  # fmt: skip
    assert report["killed"] == cycles
    assert report["answered"]["examined"] > cycles / 2
