"""Which error does each S3 error code become? Promise 3."""

from __future__ import annotations

import pytest

from cachesvc.core.errors import CacheError, NoSuchObject, OriginDenied, OriginUnavailable
from cachesvc.origin.s3_codes import Refusal, error_for


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
        ("InvalidObjectState", 403, OriginDenied, "ORIGIN_OBJECT_ARCHIVED"),
        ("KMS.DisabledException", 400, OriginDenied, "ORIGIN_KMS_REFUSED"),
        ("KMS.ThrottlingException", 400, OriginUnavailable, "ORIGIN_THROTTLED"),
        ("AllAccessDisabled", 403, OriginDenied, "ORIGIN_ACCESS_DENIED"),
        ("AuthorizationHeaderMalformed", 400, OriginDenied, "ORIGIN_WRONG_REGION"),
        ("301", 301, OriginDenied, "ORIGIN_WRONG_REGION"),
        ("InvalidToken", 400, OriginDenied, "ORIGIN_BAD_CREDENTIALS"),
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
    result = error_for(Refusal(code, status), "photo.png")

    assert (type(result), result.reason) == (error, reason)


@pytest.mark.parametrize(
    ("refusal", "reason", "words"),
    [
        (
            Refusal(
                "AccessDenied",
                403,
                "User: x is not authorized to perform: s3:GetObject on "
                "resource: y with an explicit deny in a resource-based policy",
            ),
            "ORIGIN_ACCESS_DENIED",
            "s3:GetObject is not allowed (explicit deny in a resource-based policy)",
        ),
        (
            Refusal(
                "AccessDenied",
                403,
                "User: x is not authorized to perform: s3:ListBucket on "
                "resource: y because no identity-based policy allows the action",
            ),
            "ORIGIN_ACCESS_DENIED",
            "s3:ListBucket is not allowed (no identity-based policy)",
        ),
        (
            Refusal("AccessDenied", 403, "User: x is not authorized to perform: kms:Decrypt on z"),
            "ORIGIN_KMS_REFUSED",
            "kms:Decrypt is not allowed",
        ),
        (
            Refusal("PermanentRedirect", 301, region="eu-west-1"),
            "ORIGIN_WRONG_REGION",
            "(CACHESVC_ORIGIN__REGION), but in eu-west-1",
        ),
        (
            Refusal("403", 403, is_page=True),
            "ORIGIN_BAD_ANSWER",
            "a proxy or another server, not S3, is at origin.endpoint_url",
        ),
        (
            Refusal("AccessDenied", 403, by_sts=True),
            "ORIGIN_BAD_CREDENTIALS",
            "may not take the role (AWS_ROLE_ARN",
        ),
        (
            Refusal("InvalidIdentityToken", 400, by_sts=True),
            "ORIGIN_BAD_CREDENTIALS",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
        ),
        (Refusal("InternalFailure", 500, by_sts=True), "ORIGIN_CREDENTIALS_UNAVAILABLE", "STS"),
    ],
    ids=str,
)
def test_a_refusal_names_the_cause_that_its_body_tells(
    refusal: Refusal, reason: str, words: str
) -> None:
    result = error_for(refusal, "photo.png")

    assert result.reason == reason
    assert words in result.message
    assert "User:" not in result.message
