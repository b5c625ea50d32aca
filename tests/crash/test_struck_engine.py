"""Promises 1, 2, 3, 5 and 8: what if one system call kills the process, fails, or does not return?

Each operation of an engine is run once for each of its calls to files, and strace strikes that
call: the process dies there (the next life finds all that was answered), or the call fails, once or
from then on (nothing is answered that is not durable: the disks lose their power afterwards), or
the call takes 2 s (hits are served meanwhile). The quick tier strikes a sample.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.conftest import CanLosePower
from tests.crash.programs import report_of
from tests.support import strace

pytestmark = pytest.mark.timeout(1800)
# A loop that is not blocked turns hundreds of times in 2 s, also on a busy machine.
MANY_HITS = 50


@pytest.fixture(autouse=True)
def _needs_strace() -> None:
    if reason := strace.why_not_available():
        pytest.skip(reason)


def sampled(quick: int) -> pytest.MarkDecorator:
    """Parametrize a test: a sample in the quick tier, every call in the long one."""
    return pytest.mark.parametrize(
        "sample",
        [
            pytest.param(("--sample", quick), id="sample"),
            pytest.param((), id="every", marks=pytest.mark.slow),
        ],
    )


@sampled(24)
def test_death_at_any_system_call_leaves_what_was_answered(
    tmp_path: Path, sample: tuple[object, ...]
) -> None:
    report = report_of("strike", "--fault", "kill", "--folder", tmp_path, *sample, within_s=1700)
    # A run may have a few calls less than the counted one.
    assert report["counts"]["killed"] > 0.7 * report["planned"] > 0


@sampled(24)
def test_a_system_call_that_fails_leaves_nothing_answered_that_is_not_there(
    tmp_path: Path, sample: tuple[object, ...]
) -> None:
    report = report_of("strike", "--fault", "error", "--folder", tmp_path, *sample, within_s=1700)
    assert report["counts"]["survived"] == report["planned"] > 0


def test_one_read_that_fails_does_not_cost_the_catalog(tmp_path: Path) -> None:
    report = report_of("strike", "--fault", "error", "--operations", "start", "invalidate",
                       "--calls", "pread64", "--folder", tmp_path, within_s=100)  # fmt: skip
    assert report["counts"]["survived"] == report["planned"] > 0


@sampled(12)
def test_what_is_answered_after_a_failed_system_call_survives_a_power_cut(
    tmp_path: Path, sample: tuple[object, ...], can_lose_power: CanLosePower
) -> None:
    can_lose_power("ext4")
    report = report_of("strike", "--fault", "error", "--power", "ext4", "--folder", tmp_path,
                       *sample, within_s=1700)  # fmt: skip
    assert report["counts"]["survived"] == report["planned"] > 0


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(("--operations", "invalidate", "--sample", 1), id="one"),
        pytest.param((), id="every", marks=pytest.mark.slow),
    ],
)
def test_hits_are_served_while_a_system_call_hangs(
    tmp_path: Path, choice: tuple[object, ...]
) -> None:
    report = report_of("strike", "--fault", "hang", "--folder", tmp_path, *choice, within_s=1700)
    assert report["hung"] > 0.7 * report["planned"] > 0
    assert report["least_hits"] > MANY_HITS
