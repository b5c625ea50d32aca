"""Does every error have a code, and which error decides the status of a try-on?"""

from __future__ import annotations

import itertools
import re
from typing import Any

import grpc
import pytest

from cachesvc.core import errors
from cachesvc.core.errors import CacheError
from cachesvc.edge.statuses import (
    CODES,
    DeadlineExceeded,
    PartsFailed,
    code_of,
    trailing_metadata,
)
from cachesvc_proto.v1 import cache_pb2 as pb

Code = grpc.StatusCode
# As docs and clients have it: the contract, not a copy of the code's table.
CONTRACT: dict[type[CacheError], grpc.StatusCode] = {
    errors.CacheError: Code.INTERNAL,
    errors.InvalidRequest: Code.INVALID_ARGUMENT,
    errors.Unauthenticated: Code.UNAUTHENTICATED,
    errors.PermissionDenied: Code.PERMISSION_DENIED,
    errors.PreconditionFailed: Code.FAILED_PRECONDITION,
    errors.NoSuchObject: Code.NOT_FOUND,
    errors.Overloaded: Code.RESOURCE_EXHAUSTED,
    errors.HostBusy: Code.RESOURCE_EXHAUSTED,
    errors.Aborted: Code.ABORTED,
    errors.SourceTooOld: Code.ABORTED,
    errors.OriginError: Code.UNAVAILABLE,
    errors.OriginUnavailable: Code.UNAVAILABLE,
    errors.ObjectChanging: Code.UNAVAILABLE,
    errors.OriginDenied: Code.FAILED_PRECONDITION,
    errors.OriginDataCorrupt: Code.DATA_LOSS,
    errors.NotDurable: Code.UNAVAILABLE,
    errors.Draining: Code.UNAVAILABLE,
    DeadlineExceeded: Code.DEADLINE_EXCEEDED,
}
EVERY_ERROR = [
    found
    for found in (*vars(errors).values(), DeadlineExceeded)
    if isinstance(found, type) and issubclass(found, CacheError)
]
# These errors end in the engine: as a quarantine, a fresh flight, an eviction.
NEVER_ANSWERED = {errors.CorruptEntry, errors.StaleFill, errors.MemoryFull}
SPEAKING: dict[grpc.StatusCode, CacheError] = {
    Code.PERMISSION_DENIED: errors.PermissionDenied("x"),
    Code.FAILED_PRECONDITION: errors.PreconditionFailed("x"),
    Code.DATA_LOSS: errors.OriginDataCorrupt("x"),
    Code.UNAVAILABLE: errors.OriginUnavailable("x"),
    Code.RESOURCE_EXHAUSTED: errors.Overloaded("x"),
    Code.NOT_FOUND: errors.NoSuchObject("x"),
    Code.ABORTED: errors.Aborted("x"),
}


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: str(error.__name__))
def test_every_error_has_the_code_of_the_contract(error: type[CacheError]) -> None:
    expected = Code.INTERNAL if error in NEVER_ANSWERED else CONTRACT[error]
    assert code_of(error("what happened")) is expected


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: str(error.__name__))
def test_every_error_carries_a_stable_reason_and_its_detail(error: type[CacheError]) -> None:
    raised = error("what happened", object_keys=("users/o/x.pkl",))
    metadata: dict[str, Any] = dict(trailing_metadata(raised))
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", raised.reason)
    assert metadata["cachesvc-reason"] == raised.reason
    detail = pb.ErrorDetail.FromString(metadata["cachesvc-error-bin"])
    assert detail.reason == raised.reason
    assert list(detail.object_keys) == ["users/o/x.pkl"]


def test_a_base_class_never_hides_its_subclasses_in_the_table() -> None:
    for earlier, later in itertools.combinations([kind for kind, _ in CODES], 2):
        assert not issubclass(later, earlier), f"{later} is never reached"


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(SPEAKING, 2)), ids=lambda code: str(code.name)
)
def test_the_more_important_failure_speaks_for_a_try_on(
    first: grpc.StatusCode, second: grpc.StatusCode
) -> None:
    order = [
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.DATA_LOSS,
        Code.UNAVAILABLE,
        Code.RESOURCE_EXHAUSTED,
        Code.NOT_FOUND,
        Code.ABORTED,  # missing from the contract's list, so it comes last
    ]
    error = PartsFailed({"human": SPEAKING[first], "garment": SPEAKING[second], "text": None})
    assert code_of(error) is min(first, second, key=order.index)


def test_a_failed_try_on_names_code_reason_and_message_of_each_part() -> None:
    error = PartsFailed(
        {
            "human": errors.NoSuchObject("no person", object_keys=("a",)),
            "garment": None,
            "text": errors.OriginDataCorrupt(
                "bad text", reason="PICKLE_REFUSED", object_keys=("b",)
            ),
        }
    )
    metadata: dict[str, Any] = dict(trailing_metadata(error))
    detail = pb.ErrorDetail.FromString(metadata["cachesvc-error-bin"])
    assert metadata["cachesvc-reason"] == detail.reason == "PICKLE_REFUSED"
    assert list(detail.object_keys) == ["a", "b"]
    assert [(p.part, p.code, p.reason, p.message) for p in detail.parts] == [
        ("human", Code.NOT_FOUND.value[0], "NO_SUCH_OBJECT", "no person"),
        ("garment", 0, "", ""),
        ("text", Code.DATA_LOSS.value[0], "PICKLE_REFUSED", "bad text"),
    ]
    assert error.message == "human: no person; text: bad text"
