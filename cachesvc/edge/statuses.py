"""The one table from our errors to gRPC codes, and what an error's answer carries."""

from __future__ import annotations

import grpc

from cachesvc.core import errors
from cachesvc_proto.v1 import cache_pb2 as pb

Code = grpc.StatusCode
REASON_KEY = "cachesvc-reason"
DETAIL_KEY = "cachesvc-error-bin"


class DeadlineExceeded(errors.CacheError):
    """The default deadline passed for a call without its own, or a stream is not read."""

    default_reason = "DEADLINE"


# The answer after a defect: its text may hold ids and paths, so only the log has it.
DEFECT = errors.CacheError("the daemon failed; its log says how")
# Subclasses before their bases: the first that fits is used.
CODES: tuple[tuple[type[errors.CacheError], Code], ...] = (
    (errors.InvalidRequest, Code.INVALID_ARGUMENT),
    (errors.Unauthenticated, Code.UNAUTHENTICATED),
    (errors.PermissionDenied, Code.PERMISSION_DENIED),
    (errors.PreconditionFailed, Code.FAILED_PRECONDITION),
    (errors.NoSuchObject, Code.NOT_FOUND),
    (errors.Overloaded, Code.RESOURCE_EXHAUSTED),
    (errors.Aborted, Code.ABORTED),
    (errors.OriginDenied, Code.FAILED_PRECONDITION),
    (errors.OriginDataCorrupt, Code.DATA_LOSS),
    (errors.OriginError, Code.UNAVAILABLE),
    (errors.NotDurable, Code.UNAVAILABLE),
    (errors.Draining, Code.UNAVAILABLE),
    (DeadlineExceeded, Code.DEADLINE_EXCEEDED),
    (errors.CacheError, Code.INTERNAL),
)
# How the metrics count each status; a call can end with no other.
OUTCOMES: dict[Code, str] = {
    Code.OK: "ok",
    **dict.fromkeys(
        (
            Code.INVALID_ARGUMENT,
            Code.UNAUTHENTICATED,
            Code.PERMISSION_DENIED,
            Code.FAILED_PRECONDITION,
            Code.NOT_FOUND,
            Code.ABORTED,
            Code.CANCELLED,
        ),
        "refused",
    ),
    **dict.fromkeys(
        (
            Code.RESOURCE_EXHAUSTED,
            Code.DATA_LOSS,
            Code.UNAVAILABLE,
            Code.DEADLINE_EXCEEDED,
            Code.INTERNAL,
        ),
        "failed",
    ),
}
# The code that comes first decides the status of a GetTryOn with several failures.
PRECEDENCE = (
    Code.PERMISSION_DENIED,
    Code.FAILED_PRECONDITION,
    Code.DATA_LOSS,
    Code.UNAVAILABLE,
    Code.RESOURCE_EXHAUSTED,
    Code.NOT_FOUND,
)


class PartsFailed(errors.CacheError):
    """A GetTryOn of which some parts failed; `parts` has the error of each, None = OK."""

    def __init__(self, parts: dict[str, errors.CacheError | None]) -> None:
        self.parts = parts
        failed = {part: error for part, error in parts.items() if error is not None}
        self.speaker = min(failed.values(), key=_rank)
        texts = "; ".join(f"{part}: {error.message}" for part, error in failed.items())
        super().__init__(
            texts,
            reason=self.speaker.reason,
            object_keys=tuple(key for error in failed.values() for key in error.object_keys),
        )


def code_of(error: errors.CacheError) -> grpc.StatusCode:
    """Return the gRPC code that `error` is answered with."""
    if isinstance(error, PartsFailed):
        error = error.speaker
    return next(code for kind, code in CODES if isinstance(error, kind))


def _rank(error: errors.CacheError) -> int:
    code = code_of(error)
    return PRECEDENCE.index(code) if code in PRECEDENCE else len(PRECEDENCE)


def trailing_metadata(error: errors.CacheError) -> tuple[tuple[str, str | bytes], ...]:
    """Return the reason and the ErrorDetail of `error`."""
    detail = pb.ErrorDetail(reason=error.reason, object_keys=error.object_keys)
    if isinstance(error, errors.SourceTooOld):
        detail.sources_from.FromNanoseconds(error.sources_from_ns)
    if isinstance(error, PartsFailed):
        for part, failure in error.parts.items():
            status = detail.parts.add(part=part)
            if failure is not None:
                status.code = code_of(failure).value[0]
                status.reason = failure.reason
                status.message = failure.message
    return ((REASON_KEY, error.reason), (DETAIL_KEY, detail.SerializeToString()))
