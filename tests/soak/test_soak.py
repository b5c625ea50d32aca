"""Does the real daemon return to its first state after calls of all kinds? Promise 5.

A third of the calls is cancelled, and workers end without closing anything. The slow test calls the
daemon and a bare grpc.aio server side by side.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import EXPECTED_ENDS, Shift, soak

QUICK_CALLS = 300
LONG_CALLS = 200_000
# The last connection may just be closing. A leak is one in every few calls.
CLOSING = 2


def test_descriptors_tasks_and_threads_come_back(tmp_path: Path) -> None:
    soaked = soak(tmp_path, lambda calls, _: calls >= QUICK_CALLS, Shift(1, QUICK_CALLS))
    daemon = soaked.daemon
    assert all(more <= CLOSING for more in daemon.left_over().values())
    assert daemon.ended.keys() <= EXPECTED_ENDS
    assert daemon.ended["cancelled"] > QUICK_CALLS * 0.1
    assert sum(daemon.ended.values()) - daemon.ended["local"] == QUICK_CALLS


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_thousand_calls_leave_nothing_behind(tmp_path: Path) -> None:
    soaked = soak(tmp_path, lambda calls, _: calls >= LONG_CALLS)
    print(soaked.daemon.ended, soaked.slope())  # noqa: T201 - the figures of the run
    assert soaked.complaints() == []
    assert soaked.daemon.calls == soaked.echo.calls >= LONG_CALLS
