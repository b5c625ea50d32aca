"""Does the benchmark measure each build's own code, and when does it call a build slower?"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bench.builds.checkout import Checkout
from bench.builds.verdict import judge

ROOT = Path(__file__).parents[2]

MS = 1_000_000


def rounds(*medians_ms: float) -> list[list[int]]:
    return [[int(ms * MS)] * 3 for ms in medians_ms]


def test_a_build_that_lies_within_the_older_copies_spread_is_no_slower() -> None:
    verdict = judge(
        "local",
        {
            "before": rounds(10, 10, 10, 10),
            "before again": rounds(9, 11, 10, 12),
            "now": rounds(10, 11, 10.5, 11),
        },
    )

    assert verdict.holds
    assert verdict.p50s_ms["before"] == 10
    assert verdict.aa_ratio == 1.05


def test_a_build_that_lies_beyond_it_is_slower() -> None:
    verdict = judge(
        "local",
        {
            "before": rounds(10, 10, 10, 10),
            "before again": rounds(10, 10.2, 9.9, 10.1),
            "now": rounds(11, 11, 11, 11),
        },
    )

    assert not verdict.holds
    assert 1.08 < verdict.ratio < 1.1


def test_which_older_copy_came_first_does_not_matter() -> None:
    slower_copy_first = judge(
        "local",
        {"before": rounds(11, 11), "before again": rounds(10, 10), "now": rounds(10.7, 10.7)},
    )
    slower_copy_last = judge(
        "local",
        {"before": rounds(10, 10), "before again": rounds(11, 11), "now": rounds(10.7, 10.7)},
    )

    assert slower_copy_first.aa_spread == slower_copy_last.aa_spread
    assert slower_copy_first.holds
    assert slower_copy_last.holds


def test_a_checkout_runs_its_own_code_wherever_the_benchmark_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "cachesvc", tmp_path / "cachesvc")
    shutil.copytree(ROOT / "client", tmp_path / "client")
    (tmp_path / "cachesvc/__main__.py").write_text("import cachesvc; print(cachesvc.__file__)")
    monkeypatch.chdir(ROOT)
    checkout = Checkout(tmp_path)

    checkout.check()
    command = (checkout.python, "-m", "cachesvc")
    said = subprocess.run(command, **checkout.popen_options({}), capture_output=True, check=True)

    assert said.stdout.decode().strip() == str(tmp_path / "cachesvc/__init__.py")


def test_a_checkout_that_would_run_other_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="would run"):
        Checkout(tmp_path).check()
