"""The errors of calls, and the class of error for each of the daemon's answers.

An answer with only a code becomes the class of that code.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from cachesvc_proto.v1 import cache_pb2

REASON_KEY = "cachesvc-reason"
DETAIL_KEY = "cachesvc-error-bin"

Metadata = Iterable[tuple[str, "str | bytes"]]


class PartStatus(NamedTuple):
    """How one part (`human`, `garment` or `text`) of a try-on ended."""

    part: str
    code: grpc.StatusCode
    reason: str
    message: str


class CacheServiceError(Exception):
    """The base of all errors of calls.

    `code` is gRPC's. `reason` is the daemon's stable word, empty if it sent none: match on it or on
    the class, not on `message`. `object_keys` names the origin's objects concerned, and `parts`
    says how each part of a try-on ended.
    """

    default_code = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str = "",
        object_keys: tuple[str, ...] = (),
        parts: tuple[PartStatus, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.reason = reason
        self.object_keys = object_keys
        self.parts = parts

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, reason={self.reason!r})"

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"


class NotCached(CacheServiceError):
    """Neither the cache nor the origin has the entry, or only a version older than asked for.

    `missing` names the absent parts: of a try-on those of `human`, `garment`, `text` (empty if the
    daemon named none), otherwise the entry that was asked for.
    """

    default_code = grpc.StatusCode.NOT_FOUND
    missing: tuple[str, ...] = ()


class InvalidRequest(CacheServiceError):
    """The caller must change the request: an id, a namespace, a value that cannot be stored."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class PreconditionFailed(CacheServiceError):
    """The call cannot be answered as it is: OWNER_REQUIRED, KIND_VERSION_MISMATCH."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class OriginDenied(PreconditionFailed):
    """The origin refused the daemon's credentials: an operator must act."""


class PermissionDenied(CacheServiceError):
    """The daemon does not know this caller, or none of its roles allows this call."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(PermissionDenied):
    """The daemon does not know this caller: no credential, an unknown or an expired one."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class Overloaded(CacheServiceError):
    """The entry or the call is too large, or the daemon has no room for it now."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Aborted(CacheServiceError):
    """The call lost to a newer change: PUT_OUTDATED, PUT_FENCED, FILL_FENCED, ERASED.

    `sources_from`: no Put of any entry whose source was read before is stored, because the daemon
    may not know of all earlier changes. None: a change of this entry is the cause.
    """

    sources_from: datetime | None = None

    default_code = grpc.StatusCode.ABORTED


class DataLoss(CacheServiceError):
    """The origin's objects (`object_keys`) cannot be decoded safely."""

    default_code = grpc.StatusCode.DATA_LOSS


class CacheUnavailable(CacheServiceError):
    """The daemon is away, or leaving, and was not back within `wait_s`."""

    default_code = grpc.StatusCode.UNAVAILABLE


class CacheUnreachable(CacheUnavailable):
    """No daemon can be reached with this set-up, and waiting would not change that.

    Raised at once, for any `wait_s`. `reason` is SOCKET_FORBIDDEN, NOT_A_SOCKET,
    DAEMON_NOT_TRUSTED, NAME_UNKNOWN or a mistake of TLS (TLS_...). The message says what to change.
    """


class InvalidSettings(CacheServiceError, ValueError):
    """An argument or a variable of the client cannot work; the message names it."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class OriginUnavailable(CacheServiceError):
    """The daemon could not ask the origin. Retry later; this never means "not found"."""

    default_code = grpc.StatusCode.UNAVAILABLE


class NotDurable(CacheServiceError):
    """A Put or an Invalidate is not acknowledged: call again.

    NOT_DURABLE: the change is not on disk, or an older file is still in place. What an Invalidate
    names is no longer served, but a restart may bring it back. ERASE_FAILED: what `erase` names is
    gone, but workers still have its bytes mapped.
    """

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(CacheServiceError):
    """The call took longer than its `timeout_s`. Shared work in the daemon goes on."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Unsupported(CacheServiceError):
    """The daemon is older than this client and does not know the call."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class UnreadableAnswer(CacheServiceError):
    """The answer is not what this version of the client can read."""

    default_code = grpc.StatusCode.INTERNAL


# gRPC's codes for a broken connection, beside UNAVAILABLE: "Internal error from Core", "Stream
# removed", and the cancellation of a call that arrives as a daemon closes its listeners.
_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)
# Reasons of failures that are not the origin's. Any other reason with these codes is the origin's.
_NOT_THE_ORIGIN: dict[grpc.StatusCode, dict[str, type[CacheServiceError]]] = {
    grpc.StatusCode.FAILED_PRECONDITION: {
        "": PreconditionFailed,
        "PRECONDITION_FAILED": PreconditionFailed,
        "OWNER_REQUIRED": PreconditionFailed,
        "KIND_VERSION_MISMATCH": PreconditionFailed,
    },
    grpc.StatusCode.UNAVAILABLE: {
        "": CacheUnavailable,
        "DRAINING": CacheUnavailable,
        "NOT_DURABLE": NotDurable,
        "ERASE_FAILED": NotDurable,
    },
    **{code: {"": CacheUnavailable} for code in _BROKEN},
}
_BY_CODE: dict[grpc.StatusCode, type[CacheServiceError]] = {
    grpc.StatusCode.NOT_FOUND: NotCached,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: OriginDenied,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.UNAVAILABLE: OriginUnavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unsupported,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def class_of(code: grpc.StatusCode, reason: str) -> type[CacheServiceError]:
    """Return the class for an answer; the base class for a code without a class."""
    known = _NOT_THE_ORIGIN.get(code, {}).get(reason)
    return known or _BY_CODE.get(code, CacheServiceError)


def error_of_status(
    code: grpc.StatusCode, message: str, metadata: Metadata, asked_for: str = ""
) -> CacheServiceError:
    """Return the error for a status with its trailing metadata.

    `asked_for` becomes `missing` of a NOT_FOUND; empty for a call with parts.
    """
    values = dict(metadata)
    detail = _detail(values.get(DETAIL_KEY, b""))
    reason = _text(values.get(REASON_KEY, "")) or detail.reason
    error = class_of(code, reason)(
        message,
        code=code,
        reason=reason,
        object_keys=tuple(detail.object_keys),
        parts=tuple(
            PartStatus(p.part, _CODES.get(p.code, grpc.StatusCode.UNKNOWN), p.reason, p.message)
            for p in detail.parts
        ),
    )
    if isinstance(error, NotCached):
        error.missing = missing_parts(error.parts, asked_for)
    if isinstance(error, Aborted) and detail.HasField("sources_from"):
        error.sources_from = detail.sources_from.ToDatetime(timezone.utc)
    return error


def error_of_rpc(exc: grpc.RpcError, asked_for: str = "") -> CacheServiceError:
    """Return the error for the exception of a sync or an aio call."""
    # A sync call raises the call object itself; RpcError declares none of its methods.
    if not hasattr(exc, "code"):
        return CacheServiceError(
            f"a gRPC interceptor of this process ended the call: {exc!r}", reason="INTERCEPTED"
        )
    code, message = exc.code(), exc.details()
    # Iterate to get pairs: aio's type also has keys(), which would mislead dict().
    metadata: Any = exc.trailing_metadata() or ()
    pairs = [(key, value) for key, value in metadata]
    return error_of_status(code, message or code.name, pairs, asked_for)


def is_away(error: CacheServiceError) -> bool:
    """Return whether the daemon was away: no connection, or a daemon that is stopping.

    A broken connection has no reason; every error of a daemon has one.
    """
    if error.code in _BROKEN:
        return error.reason == "" and not isinstance(error, UnreadableAnswer)
    return error.code is grpc.StatusCode.UNAVAILABLE and error.reason in ("", "DRAINING")


def missing_parts(parts: tuple[PartStatus, ...], asked_for: str) -> tuple[str, ...]:
    """Return `missing` of a NotCached."""
    if parts:
        return tuple(p.part for p in parts if p.code is grpc.StatusCode.NOT_FOUND)
    return (asked_for,) if asked_for else ()


def _detail(value: str | bytes) -> cache_pb2.ErrorDetail:
    try:
        return cache_pb2.ErrorDetail.FromString(value if isinstance(value, bytes) else b"")
    except DecodeError:
        # The code and the message still say what happened.
        return cache_pb2.ErrorDetail()


def _text(value: str | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
