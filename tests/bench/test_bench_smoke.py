"""Does the benchmark still run?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# torch alone takes many seconds to load from a cold disk, and each contender loads it.
@pytest.mark.timeout(240)
def test_a_quick_run_measures_a_local_hit_beside_the_floor(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = (sys.executable, "-m", "bench", "--quick", "--only", "floor,local")
    paths = os.pathsep.join((str(ROOT), str(ROOT / "client")))

    done = subprocess.run(
        [*command, "--results", str(results)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(results.read_text())
    assert list(measured["workloads"]) == ["human", "garment", "text", "tryon"]
    for workload in measured["workloads"].values():
        assert [row["name"] for row in workload["rows"]] == ["floor", "local"]
        assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in workload["rows"])
        assert workload["unavailable"] == {}
    (verdict,) = measured["verdicts"]
    assert verdict["claim"]["row"] == ["human", "local"]
