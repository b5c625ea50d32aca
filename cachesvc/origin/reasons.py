"""Which errors and limits do both origins share?

The reasons are stable: metrics, clients and runbooks match on them.
"""

from __future__ import annotations

import errno

from cachesvc.core.errors import (
    HostBusy,
    NoSuchObject,
    ObjectChanging,
    OriginDataCorrupt,
    OriginUnavailable,
)
from cachesvc.core.pools import is_refused_thread

# A cold read of all members takes 1-3 s; after this time its caller has given up.
DEFAULT_DEADLINE_S = 10.0
# The largest object of the try-on service is 4.7 MB. A read holds the whole object in memory.
DEFAULT_MAX_OBJECT_BYTES = 64 * 1024 * 1024

# The origin gave no whole answer in time (retryable, OriginUnavailable).
TIMEOUT = "ORIGIN_TIMEOUT"
UNREACHABLE = "ORIGIN_UNREACHABLE"
SERVER_ERROR = "ORIGIN_SERVER_ERROR"
THROTTLED = "ORIGIN_THROTTLED"
BAD_ANSWER = "ORIGIN_BAD_ANSWER"
CREDENTIALS_UNAVAILABLE = "ORIGIN_CREDENTIALS_UNAVAILABLE"
CLOSED = "ORIGIN_CLOSED"
OBJECT_CHANGING = "ORIGIN_OBJECT_CHANGING"

# The origin refused the request: an operator must act (OriginDenied).
ACCESS_DENIED = "ORIGIN_ACCESS_DENIED"
BAD_CREDENTIALS = "ORIGIN_BAD_CREDENTIALS"
EXPIRED_CREDENTIALS = "ORIGIN_EXPIRED_CREDENTIALS"
NO_CREDENTIALS = "ORIGIN_NO_CREDENTIALS"
CLOCK_SKEW = "ORIGIN_CLOCK_SKEW"
NO_SUCH_BUCKET = "NO_SUCH_BUCKET"
WRONG_REGION = "ORIGIN_WRONG_REGION"
MISCONFIGURED = "ORIGIN_MISCONFIGURED"
REFUSED = "ORIGIN_REFUSED"
KEY_REFUSED = "ORIGIN_KEY_REFUSED"
OBJECT_ARCHIVED = "ORIGIN_OBJECT_ARCHIVED"
KMS_REFUSED = "ORIGIN_KMS_REFUSED"

OBJECT_TOO_LARGE = "OBJECT_TOO_LARGE"

# This host lacked resources, and the origin was not asked (HostBusy).
HOST_RESOURCES = "HOST_RESOURCES"
_LACKING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL)


def no_such_object(object_key: str) -> NoSuchObject:
    return NoSuchObject("the origin has no such object", object_keys=(object_key,))


def too_large(object_key: str, size_bytes: int, max_object_bytes: int) -> OriginDataCorrupt:
    return OriginDataCorrupt(
        f"the object has {size_bytes:,} bytes; limits.max_entry_bytes is {max_object_bytes:,}",
        reason=OBJECT_TOO_LARGE,
        object_keys=(object_key,),
    )


def timed_out(deadline_s: float) -> OriginUnavailable:
    return OriginUnavailable(f"the origin took longer than {deadline_s:g} s", reason=TIMEOUT)


def changing() -> ObjectChanging:
    return ObjectChanging(
        "another process is writing the object's file in place; write a new file and rename it "
        "over the old one",
        reason=OBJECT_CHANGING,
    )


def closed() -> OriginUnavailable:
    return OriginUnavailable("the origin is closed: the daemon is stopping", reason=CLOSED)


def lack_of_this_host(exc: BaseException) -> HostBusy | None:
    """Return HostBusy if `exc` or one of its causes is a lack of this host, otherwise None.

    Libraries wrap the system's error, some more than once.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = exc
    while cause is not None and cause not in seen:
        if _is_lack(cause):
            return HostBusy(
                "this host has no descriptors, memory or threads left to ask the origin; retry",
                reason=HOST_RESOURCES,
            )
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return None


def _is_lack(exc: BaseException) -> bool:
    if isinstance(exc, OSError):
        return exc.errno in _LACKING
    return isinstance(exc, MemoryError) or is_refused_thread(exc)
