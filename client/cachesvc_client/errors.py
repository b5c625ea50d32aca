"""What a call may raise, and which answer of the daemon becomes which class.

Every error has the gRPC `code`, the daemon's stable `reason`, a `message`, the
`object_keys` at the origin that it is about, and for a try-on the status of each
part. A daemon that sends only a code gets the class of that code.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    """Base of everything a call raises. `reason` is stable: match on it, not on the text."""

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

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"


class NotCached(CacheServiceError):
    """Neither the cache nor the origin has it, or only a version older than asked for.

    `missing` names the parts: of a try-on those of `human`, `garment`, `text` that
    are absent (empty if the daemon did not say), else the one that was asked for.
    """

    default_code = grpc.StatusCode.NOT_FOUND
    missing: tuple[str, ...] = ()


class InvalidRequest(CacheServiceError):
    """The caller must change the request: an id, a namespace, a value that cannot be stored."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class PreconditionFailed(CacheServiceError):
    """Something must happen first: OWNER_REQUIRED, KIND_VERSION_MISMATCH."""

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
    """Too large, or no room right now."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Aborted(CacheServiceError):
    """The call lost to a newer change of the key: PUT_OUTDATED, PUT_FENCED, FILL_FENCED."""

    default_code = grpc.StatusCode.ABORTED


class DataLoss(CacheServiceError):
    """What the origin holds (`object_keys`) cannot be decoded safely."""

    default_code = grpc.StatusCode.DATA_LOSS


class CacheUnavailable(CacheServiceError):
    """The daemon is away, or leaving, and was not back within `wait_s`."""

    default_code = grpc.StatusCode.UNAVAILABLE


class CacheUnreachable(CacheUnavailable):
    """No daemon can be reached as things are set up, which waiting would not change.

    Raised at once, `wait_s` or not. `reason` says what it is: SOCKET_FORBIDDEN, NOT_A_SOCKET,
    DAEMON_NOT_TRUSTED, NAME_UNKNOWN, and the mistakes of TLS (TLS_...). The message says what
    to change.
    """


class InvalidSettings(CacheServiceError, ValueError):
    """An argument or a variable of the client cannot work; the message names it."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class OriginUnavailable(CacheServiceError):
    """The daemon is there, but could not ask the origin. Retry later; never "not found"."""

    default_code = grpc.StatusCode.UNAVAILABLE


class NotDurable(CacheServiceError):
    """Invalidated, but not acknowledged: it is not on disk yet. Call again for the proof."""

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


# What gRPC now and then calls a break, beside UNAVAILABLE: "Internal error from Core", "Stream
# removed", and a call that came as a daemon closed its listeners, which cancels it.
_BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)
# Reasons that say it was not the origin; every other one with these codes is the origin's.
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
    """Return the class for an answer; the base class for a code without one."""
    known = _NOT_THE_ORIGIN.get(code, {}).get(reason)
    return known or _BY_CODE.get(code, CacheServiceError)


def error_of_status(
    code: grpc.StatusCode, message: str, metadata: Metadata, asked_for: str = ""
) -> CacheServiceError:
    """Return the error for a status with its trailing metadata.

    `asked_for` is what a NOT_FOUND says is missing; empty for a call with parts.
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
        error.missing = _missing(error.parts, asked_for)
    return error


def error_of_rpc(exc: grpc.RpcError, asked_for: str = "") -> CacheServiceError:
    """Return the error for what a sync or an aio call raised."""
    # A sync call raises the call object itself; the base class declares none of its methods.
    code, message = exc.code(), exc.details()
    # Pairs when iterated, but aio's type also has keys(), with which dict() would go wrong.
    metadata: Any = exc.trailing_metadata() or ()
    pairs = [(key, value) for key, value in metadata]
    return error_of_status(code, message or code.name, pairs, asked_for)


def is_away(error: CacheServiceError) -> bool:
    """Return whether the daemon was not there to answer: no connection, or it is leaving.

    A connection that broke has no reason; everything that a daemon says has one.
    """
    if error.code in _BROKEN:
        return error.reason == "" and not isinstance(error, UnreadableAnswer)
    return error.code is grpc.StatusCode.UNAVAILABLE and error.reason in ("", "DRAINING")


def _missing(parts: tuple[PartStatus, ...], asked_for: str) -> tuple[str, ...]:
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
