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
from cachesvc_client._patience import FIRST_PAUSE_S, LONGEST_PAUSE_S, Patience
from cachesvc_client._target import resolve

AWAY = CacheUnavailable("socket closed")
LEAVING = CacheUnavailable("draining", reason="DRAINING")


@pytest.mark.parametrize("error", [AWAY, LEAVING])
def test_a_daemon_that_is_away_is_worth_another_attempt_within_the_wait(
    error: CacheUnavailable,
) -> None:
    patience = Patience(ends_at=130.0, wait_s=3.0)
    assert patience.may_retry(error, 100.0)
    assert patience.wait_left(102.0) == 1.0
    assert patience.may_retry(error, 102.9)
    assert not patience.may_retry(error, 103.0)


def test_the_wait_counts_from_the_first_attempt_that_found_nobody() -> None:
    patience = Patience(ends_at=130.0, wait_s=3.0)
    assert patience.may_retry(AWAY, 120.0)
    assert patience.wait_left(120.0) == 3.0
    assert patience.time_left(120.0) == 10.0


def test_the_wait_never_outlives_the_call() -> None:
    patience = Patience(ends_at=101.0, wait_s=3.0)
    assert patience.may_retry(AWAY, 100.0)
    assert patience.wait_left(100.5) == 0.5
    assert patience.time_left(102.0) == 0.0


def test_an_answer_is_never_asked_for_again() -> None:
    patience = Patience(ends_at=130.0, wait_s=3.0)
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
    assert Patience(ends_at=130.0, wait_s=3.0).may_retry(broken, 100.0)
    told = CacheServiceError("the caller left", code=code, reason="SOMETHING_NEW")
    assert not Patience(ends_at=130.0, wait_s=3.0).may_retry(told, 100.0)


def test_no_wait_means_one_attempt() -> None:
    assert not Patience(ends_at=130.0, wait_s=0.0).may_retry(AWAY, 100.0)


def test_pauses_double_up_to_a_limit_and_stay_within_the_wait() -> None:
    patience = Patience(ends_at=130.0, wait_s=3.0)
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
