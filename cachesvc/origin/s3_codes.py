"""What does an S3 error code mean to us?

Pure: codes and HTTP statuses in, our errors out. Codes:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from http import HTTPStatus

from cachesvc.core.errors import CacheError, OriginDenied, OriginUnavailable
from cachesvc.origin import reasons

_DENIED = {
    "AccessDenied": (
        reasons.ACCESS_DENIED,
        "the credentials may not do this (without s3:ListBucket, an absent object is also refused)",
    ),
    "AllAccessDisabled": (reasons.ACCESS_DENIED, "all access to the bucket is disabled"),
    "AccountProblem": (reasons.ACCESS_DENIED, "there is a problem with the account"),
    "InvalidAccessKeyId": (reasons.BAD_CREDENTIALS, "the access key is unknown"),
    "SignatureDoesNotMatch": (reasons.BAD_CREDENTIALS, "the secret key is wrong"),
    "InvalidToken": (reasons.BAD_CREDENTIALS, "the session token is not valid"),
    "ExpiredToken": (reasons.EXPIRED_CREDENTIALS, "the session token has expired"),
    "TokenRefreshRequired": (reasons.EXPIRED_CREDENTIALS, "the session token has expired"),
    "RequestTimeTooSkewed": (reasons.CLOCK_SKEW, "this host's clock is off; check NTP"),
    "NoSuchBucket": (reasons.NO_SUCH_BUCKET, "the bucket does not exist"),
    "PermanentRedirect": (reasons.WRONG_REGION, "the bucket is in another region"),
    "AuthorizationHeaderMalformed": (reasons.WRONG_REGION, "the bucket is in another region"),
    "InvalidBucketName": (reasons.MISCONFIGURED, "the bucket's name is not valid"),
    "KeyTooLongError": (reasons.KEY_REFUSED, "the object's key is too long"),
}
_UNAVAILABLE = {
    "SlowDown": reasons.THROTTLED,
    "RequestLimitExceeded": reasons.THROTTLED,
    "Throttling": reasons.THROTTLED,
    "ThrottlingException": reasons.THROTTLED,
    # A 400, but about the connection: S3 waited too long for our bytes.
    "RequestTimeout": reasons.TIMEOUT,
}


def error_for_answer(code: str, status: int, object_key: str) -> CacheError:
    """Return the error for S3's refusal of a read or write of `object_key`.

    Only `NoSuchKey` means that the object is absent. A proxy answers a bare 404 when its
    gateway is down, and a failure is never a miss.
    """
    if code == "NoSuchKey":
        return reasons.no_such_object(object_key)
    if code in _DENIED:
        reason, what = _DENIED[code]
        return OriginDenied(f"the origin refused ({code}): {what}", reason=reason)
    if code in _UNAVAILABLE:
        return OriginUnavailable(f"the origin answered {code}", reason=_UNAVAILABLE[code])
    return _error_for_status(status)


def error_for_bucket(code: str, status: int) -> CacheError:
    """Return the error for S3's refusal of a HEAD of the bucket.

    The answer to a HEAD has no body, hence no code but the status.
    """
    if status == HTTPStatus.NOT_FOUND:
        code = "NoSuchBucket"
    elif status == HTTPStatus.FORBIDDEN:
        code = "AccessDenied"
    elif status == HTTPStatus.MOVED_PERMANENTLY:
        code = "PermanentRedirect"
    return error_for_answer(code, status, "")


def _error_for_status(status: int) -> CacheError:
    message = f"the origin answered HTTP {status}"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return OriginDenied(message, reason=reasons.ACCESS_DENIED)
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return OriginUnavailable(message, reason=reasons.THROTTLED)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT) or status < 300:
        return OriginUnavailable(message, reason=reasons.BAD_ANSWER)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return OriginDenied(message, reason=reasons.REFUSED)
    return OriginUnavailable(message, reason=reasons.SERVER_ERROR)
