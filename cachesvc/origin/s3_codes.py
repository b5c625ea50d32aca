"""What does an S3 error code mean to us?

Pure: what S3 said in, our errors out. Codes:
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

from cachesvc.config.messages import setting
from cachesvc.core.errors import CacheError, OriginDenied, OriginUnavailable
from cachesvc.origin import reasons

BUCKET, REGION = setting("origin.bucket"), setting("origin.region")
ENDPOINT = setting("origin.endpoint_url")
_EXPIRED = (reasons.EXPIRED_CREDENTIALS, "the session token has expired")
_BAD_TOKEN = (reasons.BAD_CREDENTIALS, "the session token (AWS_SESSION_TOKEN) is not valid")
_UNKNOWN_KEY = (
    reasons.BAD_CREDENTIALS,
    "the access key (AWS_ACCESS_KEY_ID) is unknown there",
)
_OTHER_REGION = (reasons.WRONG_REGION, f"the bucket is not in the region of {REGION}")
_ARCHIVED = (
    reasons.OBJECT_ARCHIVED,
    "the object is in an archive class (Glacier): its bytes can be read once it is restored",
)
_DENIED = {
    "AccessDenied": (
        reasons.ACCESS_DENIED,
        "the credentials may not do this (without s3:ListBucket, an absent object is also refused)",
    ),
    "AllAccessDisabled": (reasons.ACCESS_DENIED, "all access to the bucket is disabled"),
    "AccountProblem": (reasons.ACCESS_DENIED, "there is a problem with the account"),
    "NotSignedUp": (reasons.ACCESS_DENIED, "the account has no S3"),
    "InvalidPayer": (reasons.ACCESS_DENIED, "the bucket's payer is not valid"),
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "InvalidClientTokenId": _UNKNOWN_KEY,
    "UnrecognizedClientException": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": (
        reasons.BAD_CREDENTIALS,
        "the secret key (AWS_SECRET_ACCESS_KEY) is not that of the access key",
    ),
    "InvalidToken": _BAD_TOKEN,
    "InvalidSecurity": _BAD_TOKEN,
    "InvalidIdentityToken": (
        reasons.BAD_CREDENTIALS,
        "the web identity's token (AWS_WEB_IDENTITY_TOKEN_FILE) is not valid",
    ),
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "RequestExpired": (reasons.CLOCK_SKEW, "this host's clock is off; check NTP"),
    "RequestTimeTooSkewed": (reasons.CLOCK_SKEW, "this host's clock is off; check NTP"),
    "NoSuchBucket": (reasons.NO_SUCH_BUCKET, f"there is no bucket of the name in {BUCKET}"),
    "NoSuchAccessPoint": (reasons.NO_SUCH_BUCKET, f"there is no access point as in {BUCKET}"),
    "PermanentRedirect": _OTHER_REGION,
    "TemporaryRedirect": _OTHER_REGION,
    "IllegalLocationConstraintException": _OTHER_REGION,
    "AuthorizationHeaderMalformed": _OTHER_REGION,
    "InvalidBucketName": (reasons.MISCONFIGURED, f"the name in {BUCKET} is not valid"),
    "InvalidObjectState": _ARCHIVED,
    "KeyTooLongError": (reasons.KEY_REFUSED, "the object's key is too long"),
}
_KMS = "the KMS key of the object cannot be used"
_UNAVAILABLE = {
    "SlowDown": reasons.THROTTLED,
    "RequestLimitExceeded": reasons.THROTTLED,
    "Throttling": reasons.THROTTLED,
    "ThrottlingException": reasons.THROTTLED,
    "KMS.ThrottlingException": reasons.THROTTLED,
    # A 400, but about the connection: S3 waited too long for our bytes.
    "RequestTimeout": reasons.TIMEOUT,
}
# What AWS writes: "is not authorized to perform: s3:GetObject on resource: ... because no
# identity-based policy allows ...", "with an explicit deny in a resource-based policy".
_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9*]+)")
_WHY = re.compile(
    r"(no|explicit deny in an?) ((?:[a-z-]+ )?(?:[a-z-]+ )?(?:policy|boundary|endpoint policy))"
)
_EXPECTED_REGION = re.compile(r"expecting '([a-z0-9-]+)'")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an answer says beside its status.

    `region` is where S3 says that the bucket is. `is_page` = an HTML page, which S3 never sends.
    `by_sts` = AWS refused to give credentials, and S3 was not asked.
    """

    code: str
    status: int
    message: str = ""
    region: str = ""
    is_page: bool = False
    by_sts: bool = False

    @classmethod
    def of(cls, response: Mapping[str, Any], operation: str) -> Self:
        error = response.get("Error", {})
        metadata = response.get("ResponseMetadata", {})
        headers = metadata.get("HTTPHeaders", {})
        message = str(error.get("Message", ""))
        named = _EXPECTED_REGION.search(message)
        region = error.get("Region") or headers.get("x-amz-bucket-region") or ""
        return cls(
            str(error.get("Code", "")),
            int(metadata.get("HTTPStatusCode", 0)),
            message,
            str(region or (named[1] if named else "")),
            "html" in headers.get("content-type", ""),
            operation.startswith("AssumeRole") or operation == "GetSessionToken",
        )


def error_for(refusal: Refusal, object_key: str) -> CacheError:
    """Return the error for S3's refusal of a read or write of `object_key`.

    Only `NoSuchKey` means that the object is absent. A proxy answers a bare 404 when its
    gateway is down, and a failure is never a miss.
    """
    code = refusal.code
    if code == "NoSuchKey":
        return reasons.no_such_object(object_key)
    if code in _UNAVAILABLE:
        return OriginUnavailable(f"the origin answered {code}", reason=_UNAVAILABLE[code])
    if refusal.by_sts:
        return _error_for_role(refusal)
    if code in _DENIED:
        return _denied(refusal)
    if code.startswith("KMS."):
        return OriginDenied(f"the origin refused ({code}): {_KMS}", reason=reasons.KMS_REFUSED)
    if refusal.is_page:
        return OriginUnavailable(
            f"the origin answered HTTP {refusal.status} with a web page: a proxy or another "
            f"server, not S3, is at {ENDPOINT}",
            reason=reasons.BAD_ANSWER,
        )
    return _error_for_status(refusal)


def _denied(refusal: Refusal) -> OriginDenied:
    reason, what = _DENIED[refusal.code]
    action = _ACTION.search(refusal.message)
    if action and action[1].startswith("kms:"):
        reason, what = reasons.KMS_REFUSED, f"{_KMS}: {action[1]} is not allowed"
    elif action:
        why = _WHY.search(refusal.message)
        what = f"{action[1]} is not allowed{f' ({why[1]} {why[2]})' if why else ''}"
    if reason == reasons.WRONG_REGION and refusal.region:
        what = f"{what}, but in {refusal.region}"
    return OriginDenied(f"the origin refused ({refusal.code}): {what}", reason=reason)


def _error_for_role(refusal: Refusal) -> CacheError:
    """Return the error for a role whose credentials AWS does not give."""
    if refusal.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return OriginUnavailable(
            f"AWS STS answered HTTP {refusal.status}", reason=reasons.CREDENTIALS_UNAVAILABLE
        )
    reason, what = _DENIED.get(refusal.code, (reasons.BAD_CREDENTIALS, ""))
    if refusal.code == "AccessDenied" or not what:
        reason = reasons.BAD_CREDENTIALS
        what = "these credentials may not take the role (AWS_ROLE_ARN, or role_arn of the profile)"
    return OriginDenied(f"AWS STS refused ({refusal.code}): {what}", reason=reason)


def _error_for_status(refusal: Refusal) -> CacheError:
    status, code = refusal.status, refusal.code
    said = f" {code}" if code and not code.isdigit() else ""
    message = f"the origin answered HTTP {status}{said}"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return OriginDenied(message, reason=reasons.ACCESS_DENIED)
    if status in (HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.TEMPORARY_REDIRECT):
        return OriginDenied(f"{message}: {_OTHER_REGION[1]}", reason=reasons.WRONG_REGION)
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return OriginUnavailable(message, reason=reasons.THROTTLED)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT) or status < 300:
        return OriginUnavailable(message, reason=reasons.BAD_ANSWER)
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return OriginDenied(message, reason=reasons.REFUSED)
    return OriginUnavailable(message, reason=reasons.SERVER_ERROR)
