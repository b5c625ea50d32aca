"""What can go wrong, as the caller sees it.

Every error carries a stable UPPER_SNAKE `reason`; `edge/statuses.py` maps the
classes to gRPC codes and HTTP statuses. A miss is a value, never an error, and
a failure is never a miss.
"""

from __future__ import annotations

# The reason of an absence, which is an answer of the origin and no failure.
NO_SUCH_OBJECT = "NO_SUCH_OBJECT"


class CacheError(Exception):
    """Base of all errors that a caller may see.

    `message` says what happened and what to do; it never holds a file path.
    `reason` is stable: clients and dashboards match on it. `object_keys` names the
    origin's objects that the error concerns.
    """

    default_reason = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str | None = None, object_keys: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.object_keys = object_keys


class InvalidRequest(CacheError):
    """The caller can fix the call: a bad id, an unknown namespace, a blob of another kind."""

    default_reason = "INVALID_REQUEST"


class PreconditionFailed(CacheError):
    """The request is well formed, but lacks an owner or names another version."""

    default_reason = "PRECONDITION_FAILED"


class Unauthenticated(CacheError):
    """The caller has no credential, or an unknown or expired credential."""

    default_reason = "CREDENTIAL_REQUIRED"


class PermissionDenied(CacheError):
    """The caller is known, and none of its roles allows this."""

    default_reason = "ROLE_MISSING"


class NoSuchObject(CacheError):
    """The origin said that it has no such object, or only one older than `origin_after`."""

    default_reason = NO_SUCH_OBJECT


class Overloaded(CacheError):
    """No room, or a queue is full: retry later, or send less."""

    default_reason = "OVERLOADED"


class HostBusy(Overloaded):
    """This host lacks resources now, and the origin is not at fault: retry."""

    default_reason = "HOST_BUSY"


class Aborted(CacheError):
    """The work lost to a newer change of the same key; nothing was stored."""

    default_reason = "ABORTED"


class SourceTooOld(Aborted):
    """No source read before `sources_from_ns` (wall) can be compared with all later changes."""

    default_reason = "PUT_OUTDATED"

    def __init__(
        self, message: str, *, sources_from_ns: int = 0, object_keys: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, object_keys=object_keys)
        self.sources_from_ns = sources_from_ns


class OriginError(CacheError):
    """A request to the origin failed."""

    default_reason = "ORIGIN_ERROR"


class OriginUnavailable(OriginError):
    """The origin could not be asked. Retryable, and never 'not found'."""

    default_reason = "ORIGIN_UNAVAILABLE"


class ObjectChanging(OriginUnavailable):
    """Another process is writing this object; the origin itself is well. Retryable."""

    default_reason = "ORIGIN_OBJECT_CHANGING"


class OriginDenied(OriginError):
    """The origin refused our credentials or policy: an operator must act."""

    default_reason = "ORIGIN_DENIED"


class OriginDataCorrupt(OriginError):
    """The origin's object cannot be decoded safely. Nothing of it was executed."""

    default_reason = "ORIGIN_DATA_CORRUPT"


class NotDurable(CacheError):
    """The change is not durable yet; the daemon retries, and the caller may also retry."""

    default_reason = "NOT_DURABLE"


class Draining(CacheError):
    """The daemon is shutting down; another call will find its successor."""

    default_reason = "DRAINING"


class MemoryFull(CacheError):
    """tmpfs or the process has no more room for L1. Stays in the engine: evict, try once more."""

    default_reason = "NO_ROOM"


class CorruptEntry(CacheError):
    """Bytes on disk failed their checksum. Stays in the engine: quarantine, count, miss."""

    default_reason = "CORRUPT_ENTRY"


class StaleFill(CacheError):
    """A fill lost to an invalidation or a Put. Stays in the engine: start again."""

    default_reason = "FILL_FENCED"


class ConfigError(Exception):
    """Start-up only: the settings cannot work. The process exits with code 2."""
