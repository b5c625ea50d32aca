"""Does the demo run to its end, and leave nothing behind?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment
from tests.support.daemons import ROOT

ENDS_WITHIN_S = 150
ACTS = ("0. ", "1. ", "2. ", "3. ", "4. ")


@pytest.mark.timeout(180)
def test_the_demo_ends_well_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").glob("cachesvc-demo-*"))
    ran = subprocess.run(
        [sys.executable, str(ROOT / "examples/demo/demo.py")],
        env={**environment({}), "TMPDIR": str(tmp_path), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    for act in ACTS:
        assert any(line.startswith(act) for line in lines)
    assert max(map(len, lines)) <= 80
    assert list(tmp_path.iterdir()) == []
    assert set(Path("/dev/shm").glob("cachesvc-demo-*")) <= before
