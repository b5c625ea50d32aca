"""Which error does each S3 error code become? Promise 3."""

from __future__ import annotations

import pytest

from cachesvc.core.errors import CacheError, NoSuchObject, OriginDenied, OriginUnavailable
from cachesvc.origin.s3_codes import error_for_answer, error_for_bucket


@pytest.mark.parametrize(
    ("code", "status", "error", "reason"),
    [
        ("NoSuchKey", 404, NoSuchObject, "NO_SUCH_OBJECT"),
        ("NoSuchBucket", 404, OriginDenied, "NO_SUCH_BUCKET"),
        ("404", 404, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
        ("AccessDenied", 403, OriginDenied, "ORIGIN_ACCESS_DENIED"),
        ("InvalidAccessKeyId", 403, OriginDenied, "ORIGIN_BAD_CREDENTIALS"),
        ("SignatureDoesNotMatch", 403, OriginDenied, "ORIGIN_BAD_CREDENTIALS"),
        ("ExpiredToken", 400, OriginDenied, "ORIGIN_EXPIRED_CREDENTIALS"),
        ("RequestTimeTooSkewed", 403, OriginDenied, "ORIGIN_CLOCK_SKEW"),
        ("PermanentRedirect", 301, OriginDenied, "ORIGIN_WRONG_REGION"),
        ("InvalidObjectState", 403, OriginDenied, "ORIGIN_ACCESS_DENIED"),
        ("401", 401, OriginDenied, "ORIGIN_ACCESS_DENIED"),
        ("MethodNotAllowed", 405, OriginDenied, "ORIGIN_REFUSED"),
        ("RequestTimeout", 400, OriginUnavailable, "ORIGIN_TIMEOUT"),
        ("SlowDown", 503, OriginUnavailable, "ORIGIN_THROTTLED"),
        ("429", 429, OriginUnavailable, "ORIGIN_THROTTLED"),
        ("InternalError", 500, OriginUnavailable, "ORIGIN_SERVER_ERROR"),
        ("502", 502, OriginUnavailable, "ORIGIN_SERVER_ERROR"),
        ("", 0, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    ],
)
def test_an_answer_has_its_error(
    code: str, status: int, error: type[CacheError], reason: str
) -> None:
    result = error_for_answer(code, status, "photo.png")

    assert (type(result), result.reason) == (error, reason)


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (404, OriginDenied, "NO_SUCH_BUCKET"),
        (403, OriginDenied, "ORIGIN_ACCESS_DENIED"),
        (301, OriginDenied, "ORIGIN_WRONG_REGION"),
        (503, OriginUnavailable, "ORIGIN_THROTTLED"),
    ],
)
def test_a_refused_head_of_the_bucket_is_told_by_its_status_alone(
    status: int, error: type[CacheError], reason: str
) -> None:
    result = error_for_bucket(str(status), status)

    assert (type(result), result.reason) == (error, reason)
