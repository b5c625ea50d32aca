"""How long does a call wait for a daemon that is away? The tests hand in the clock."""

from __future__ import annotations

import grpc
import pytest

from cachesvc_client import (
    CacheServiceError,
    CacheUnavailable,
    OriginUnavailable,
    UnreadableAnswer,
)
from cachesvc_client._options import LOOK_S
from cachesvc_client._patience import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    ONE_OUTAGE_S,
    Outage,
    Patience,
)
from cachesvc_client._target import resolve

AWAY = CacheUnavailable("socket closed")
LEAVING = CacheUnavailable("draining", reason="DRAINING")


@pytest.mark.parametrize("error", [AWAY, LEAVING])
def test_a_daemon_that_is_away_is_worth_another_attempt_within_the_wait(
    error: CacheUnavailable,
) -> None:
    patience = Patience(130.0, Outage(3.0))
    assert patience.may_retry(error, 100.0)
    assert patience.wait_left(102.0) == 1.0
    assert patience.may_retry(error, 102.9)
    assert not patience.may_retry(error, 103.0)


def test_the_wait_counts_from_the_first_attempt_that_found_nobody() -> None:
    patience = Patience(130.0, Outage(3.0))
    assert patience.may_retry(AWAY, 120.0)
    assert patience.wait_left(120.0) == 3.0
    assert patience.time_left(120.0) == 10.0


def test_the_wait_never_outlives_the_call() -> None:
    patience = Patience(101.0, Outage(3.0))
    assert patience.may_retry(AWAY, 100.0)
    assert patience.wait_left(100.5) == 0.5
    assert patience.time_left(102.0) == 0.0


def test_an_answer_is_never_asked_for_again() -> None:
    patience = Patience(130.0, Outage(3.0))
    assert not patience.may_retry(OriginUnavailable("S3", reason="ORIGIN_UNAVAILABLE"), 100.0)
    assert not patience.may_retry(CacheUnavailable("odd", reason="SOMETHING_NEW"), 100.0)
    defect = CacheServiceError("a defect", code=grpc.StatusCode.INTERNAL, reason="INTERNAL")
    assert not patience.may_retry(defect, 100.0)
    unreadable = UnreadableAnswer("not protobuf", code=grpc.StatusCode.INTERNAL)
    assert not patience.may_retry(unreadable, 100.0)


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED]
)
def test_a_break_is_a_break_whatever_grpc_calls_it(code: grpc.StatusCode) -> None:
    """gRPC reports so now and then when a server leaves; an error of the daemon has a reason."""
    broken = CacheServiceError("Internal error from Core", code=code)
    assert Patience(130.0, Outage(3.0)).may_retry(broken, 100.0)
    told = CacheServiceError("the caller left", code=code, reason="SOMETHING_NEW")
    assert not Patience(130.0, Outage(3.0)).may_retry(told, 100.0)


def test_the_calls_of_one_outage_wait_until_the_same_moment() -> None:
    outage = Outage(10.0)
    first, second = Patience(130.0, outage), Patience(135.0, outage)
    assert first.may_retry(AWAY, 100.0)
    assert second.may_retry(AWAY, 104.0)
    assert second.wait_left(104.0) == 6.0


def test_an_outage_is_known_once_the_whole_wait_was_in_vain() -> None:
    outage = Outage(10.0)
    patience = Patience(103.0, outage)
    assert patience.may_retry(AWAY, 100.0)
    assert not patience.may_wait(103.0)  # this call's own end
    assert not outage.is_known
    assert Patience(133.0, outage).may_retry(AWAY, 104.0)
    outage.observed(108.0)
    assert not outage.is_known
    outage.observed(110.0)
    assert outage.is_known
    outage.end()
    assert not outage.is_known
    assert Patience(150.0, outage).may_retry(AWAY, 120.0)


def test_failures_far_apart_are_two_outages_until_the_first_is_known() -> None:
    outage = Outage(10.0)
    outage.observed(100.0)
    assert outage.observed(101.0 + ONE_OUTAGE_S) == 101.0 + ONE_OUTAGE_S
    known = Outage(10.0)
    known.observed(100.0)
    for later in (104.0, 108.0, 112.0, 5000.0):
        known.observed(later)
    assert known.is_known


def test_one_call_at_a_time_probes_and_its_right_ends_by_itself() -> None:
    outage = Outage(10.0)
    assert outage.may_probe(100.0)
    assert not outage.may_probe(100.1)
    assert outage.may_probe(100.0 + LOOK_S)
    outage.end_probe()
    assert outage.may_probe(100.0 + LOOK_S)


def test_without_a_wait_no_outage_is_known() -> None:
    outage = Outage(0.0)
    outage.observed(100.0)
    outage.observed(200.0)
    assert not outage.is_known


def test_no_wait_means_one_attempt() -> None:
    assert not Patience(130.0, Outage(0.0)).may_retry(AWAY, 100.0)


def test_pauses_double_up_to_a_limit_and_stay_within_the_wait() -> None:
    patience = Patience(130.0, Outage(3.0))
    assert patience.may_retry(AWAY, 100.0)
    pauses = [patience.next_pause(100.0) for _ in range(7)]
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    assert patience.next_pause(102.9) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("target", "environment", "expected"),
    [
        (None, {}, "unix:/dev/shm/cachesvc/cachesvc.sock"),
        (None, {"CACHESVC_RUNTIME_DIR": "/run/c"}, "unix:/run/c/cachesvc.sock"),
        (
            None,
            {"CACHESVC_RUNTIME_DIR": "/run/c", "CACHESVC_GRPC__SOCKET": "/run/s.sock"},
            "unix:/run/s.sock",
        ),
        ("/tmp/x.sock", {"CACHESVC_GRPC__SOCKET": "/run/s.sock"}, "unix:/tmp/x.sock"),
        ("unix:/tmp/x.sock", {}, "unix:/tmp/x.sock"),
        ("127.0.0.1:8003", {}, "127.0.0.1:8003"),
    ],
)
def test_the_target_is_the_argument_else_what_the_daemon_reads(
    target: str | None, environment: dict[str, str], expected: str
) -> None:
    assert resolve(target, environment) == expected
