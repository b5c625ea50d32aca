"""What has to be done about an answer of the origin, and which settings have to do with it?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from cachesvc.config import OriginSettings
from cachesvc.config.messages import setting, shown
from cachesvc.core.errors import CacheError
from cachesvc.origin import reasons

# A request names a prefix, as a Get of an absent object does for S3.
_ALLOW_LIST = 'allow "s3:ListBucket" on "arn:aws:s3:::{bucket}", as deploy/iam/policy.json does'
_ALLOW_GET = 'allow "s3:GetObject" on "arn:aws:s3:::{bucket}/users/*"'
_UNKNOWN = "docs/errors.md explains the reason"
# Where AWS's chain found the credentials, by botocore's name for it.
_SOURCES = {
    "env": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in the environment",
    "shared-credentials-file": "the profile {profile} in AWS_SHARED_CREDENTIALS_FILE",
    "config-file": "the profile {profile} in AWS_CONFIG_FILE",
    "iam-role": "the instance's role",
    "container-role": "the container's role",
    "assume-role": "the role_arn of the profile {profile}",
    "assume-role-with-web-identity": "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE",
    "sso": "aws sso login for the profile {profile}",
    "custom-process": "the credential_process of the profile {profile}",
}
_AWS_VARIABLES = {
    "region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
    "endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
}
_SETTINGS = ("bucket", "region", "endpoint_url", "path")


def message_of(problem: CacheError, origin: OriginSettings) -> str:
    """Return the problem with the values of the settings that it names."""
    values = [
        f"{setting(f'origin.{name}')} is {_value(name, getattr(origin, name))}"
        for name in _SETTINGS
        if setting(f"origin.{name}") in problem.message
    ]
    return "; ".join([f"{problem.message} ({problem.reason})", *values])


def endpoint_of(origin: OriginSettings) -> str:
    return f"{setting('origin.endpoint_url')} is {_value('endpoint_url', origin.endpoint_url)}"


def fix_for(problem: CacheError, origin: OriginSettings, source: str | None) -> str:
    """Return what to do. `source` is botocore's name for the source of the credentials."""
    make = _FIXES.get(problem.reason)
    return make(origin, source_text(source)) if make else _UNKNOWN


def allow_list(bucket: str) -> str:
    return _ALLOW_LIST.format(bucket=bucket)


def allow_get(bucket: str) -> str:
    return _ALLOW_GET.format(bucket=bucket)


def source_text(source: str | None, variables: Mapping[str, str] = os.environ) -> str:
    """Return where credentials come from, in names that an operator can look up."""
    profile = variables.get("AWS_PROFILE") or "default"
    return _SOURCES.get(source or "", source or "AWS's chain").format(profile=profile)


def _value(name: str, value: object) -> str:
    if value:
        return shown((), str(value))
    set_by = [
        f"{variable} is {shown((), os.environ[variable])}"
        for variable in _AWS_VARIABLES.get(name, ())
        if os.environ.get(variable)
    ]
    decides = "empty, so AWS's own configuration decides"
    return f"{decides}: {', '.join(set_by)}" if set_by else decides


def _set(name: str, what: str) -> Callable[[OriginSettings, str], str]:
    return lambda origin, source: f"set {setting(f'origin.{name}')} to {what}"


def _always(text: str) -> Callable[[OriginSettings, str], str]:
    return lambda origin, source: text


_FIXES: dict[str, Callable[[OriginSettings, str], str]] = {
    reasons.NO_CREDENTIALS: _always(
        "give this host an instance role, or this user a profile (AWS_PROFILE)"
    ),
    reasons.BAD_CREDENTIALS: lambda origin, source: f"correct the credentials, which are {source}",
    reasons.EXPIRED_CREDENTIALS: lambda origin, source: f"renew the credentials: {source}",
    reasons.CREDENTIALS_UNAVAILABLE: lambda origin, source: (
        f"check the credentials' source: {source}"
    ),
    reasons.NO_SUCH_BUCKET: _set("bucket", "the name of a bucket that is there"),
    reasons.WRONG_REGION: _set("region", "the bucket's region (aws s3api get-bucket-location)"),
    reasons.MISCONFIGURED: _always("correct what the message names"),
    reasons.CLOCK_SKEW: _always("set this host's clock: chronyc makestep"),
    reasons.ACCESS_DENIED: lambda origin, source: (
        f"{allow_list(origin.bucket)}; {allow_get(origin.bucket)}; look for a Deny in the policies "
        "of the bucket, the role and the VPC endpoint"
    ),
    reasons.KMS_REFUSED: _always(
        'allow "kms:Decrypt" on the key to this role, in the policy of the key too; enable the key'
    ),
    reasons.OBJECT_ARCHIVED: _always(
        "restore the object (aws s3api restore-object), and keep users/ out of archive classes: "
        "check the bucket's lifecycle rules"
    ),
    reasons.UNREACHABLE: _always(
        f"check {setting('origin.endpoint_url')}, routes, DNS and the proxy's variables"
    ),
    reasons.TIMEOUT: _always("check routes, security groups and S3's VPC endpoint"),
    reasons.BAD_ANSWER: _always(
        f"check what answers at {setting('origin.endpoint_url')}: a proxy, a portal or a web server"
    ),
    reasons.THROTTLED: _always("try again later; lower origin.max_concurrent_reads"),
    reasons.SERVER_ERROR: _always("look at the store's own log; try again later"),
}
