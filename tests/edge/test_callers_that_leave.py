"""Is a call that its caller left counted as what the caller saw?"""

from __future__ import annotations

import pytest

from cachesvc.edge.calls import code_of_leaving
from cachesvc.edge.statuses import Code


@pytest.mark.parametrize(
    "remaining_s",
    [
        -0.3,
        0.0,
        pytest.param(0.004, id="the call took 4 ms to arrive"),
        pytest.param(0.1, id="10.001 s, which is 10.1 s on the wire"),
    ],
)
def test_a_caller_that_left_at_its_deadline_saw_that(remaining_s: float) -> None:
    assert code_of_leaving(remaining_s) is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize("remaining_s", [None, 0.5, 30.0])
def test_a_caller_that_left_before_its_deadline_cancelled(remaining_s: float | None) -> None:
    assert code_of_leaving(remaining_s) is Code.CANCELLED
