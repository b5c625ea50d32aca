"""How errors travel over HTTP: statuses, and one JSON body.

The error's class decides the gRPC code (`statuses.py`), and the code the HTTP status. The body is
`{"error": {"reason", "message", "code"}, "detail"}`; V2's server, like every FastAPI server, has
the text in `detail`.
"""

from __future__ import annotations

from aiohttp import web

from cachesvc.core.errors import CacheError
from cachesvc.edge.statuses import Code, code_of

HTTP_STATUSES: dict[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.UNIMPLEMENTED: 404,
    Code.ABORTED: 409,
    Code.FAILED_PRECONDITION: 412,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.INTERNAL: 500,
    Code.DATA_LOSS: 500,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
# Reasons for which HTTP has a more exact status.
_STATUS_OF_REASON = {
    "METHOD_NOT_ALLOWED": 405,
    "BODY_TOO_LARGE": 413,
    "UNSUPPORTED_CONTENT_TYPE": 415,
}
_RETRY_AFTER_S = "1"


class NotServed(CacheError):
    """No route has this path, or none has this path with this method."""

    default_reason = "NO_SUCH_ROUTE"


def http_code_of(error: CacheError) -> Code:
    """Return the code that the body names."""
    if isinstance(error, NotServed):
        return Code.UNIMPLEMENTED
    return code_of(error)


def error_response(error: CacheError) -> web.Response:
    """Return `error` as an answer."""
    code = http_code_of(error)
    status = _STATUS_OF_REASON.get(error.reason, HTTP_STATUSES[code])
    response = web.json_response(
        {
            "error": {"reason": error.reason, "message": error.message, "code": code.name},
            "detail": error.message,
        },
        status=status,
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        response.headers["Retry-After"] = _RETRY_AFTER_S
    return response
