"""Why was S3 not asked? What the library says of our settings, credentials and connections.

Each message names the one setting, variable or file that is wrong.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ConfigNotFound,
    ConfigParseError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    EndpointProviderError,
    EndpointVariantError,
    InvalidConfigError,
    InvalidEndpointConfigurationError,
    InvalidIMDSEndpointError,
    InvalidIMDSEndpointModeError,
    InvalidProxiesConfigError,
    InvalidRegionError,
    InvalidRetryConfigurationError,
    InvalidS3UsEast1RegionalEndpointConfigError,
    InvalidSTSRegionalEndpointsConfigError,
    NoAuthTokenError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    SSLError,
    SSOError,
    TokenRetrievalError,
    UnknownCredentialError,
    UnsupportedS3AccesspointConfigurationError,
    UnsupportedS3ConfigurationError,
)

from cachesvc.core.errors import OriginDenied, OriginError, OriginUnavailable
from cachesvc.origin import reasons
from cachesvc.origin.s3_codes import BUCKET, ENDPOINT, REGION

# What botocore refuses in its variables and profiles, whichever it is.
_AWS_CONFIGURATION = (
    "AWS's configuration (a variable that begins with AWS_, or the profile) has a value that "
    "cannot be used"
)
_CA_BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_OF_CONFIGURATION = (
    EndpointProviderError,
    EndpointVariantError,
    InvalidEndpointConfigurationError,
    InvalidIMDSEndpointError,
    InvalidIMDSEndpointModeError,
    InvalidProxiesConfigError,
    InvalidRetryConfigurationError,
    InvalidS3UsEast1RegionalEndpointConfigError,
    InvalidSTSRegionalEndpointsConfigError,
    UnknownCredentialError,
    UnsupportedS3AccesspointConfigurationError,
    UnsupportedS3ConfigurationError,
)


def error_for_settings(exc: Exception) -> OriginError | None:
    """Return the error for settings or credentials that cannot be used, None if it is another."""
    return _error_for_credentials(exc) or _error_for_configuration(exc)


def _error_for_credentials(exc: Exception) -> OriginError | None:
    match exc:
        case PartialCredentialsError():
            return _no_credentials(f"the credentials lack {exc.kwargs.get('cred_var', 'a part')}")
        case NoCredentialsError():
            return _no_credentials("no AWS credentials were found")
        case SSOError() | NoAuthTokenError() | TokenRetrievalError():
            return OriginDenied(
                "the profile's login has ended; run aws sso login as the daemon's user",
                reason=reasons.EXPIRED_CREDENTIALS,
            )
        case CredentialRetrievalError():
            provider = exc.kwargs.get("provider", "their provider")
            return OriginUnavailable(
                f"the AWS credentials could not be fetched from {provider}",
                reason=reasons.CREDENTIALS_UNAVAILABLE,
            )
        case _:
            return None


def _error_for_configuration(exc: Exception) -> OriginError | None:
    match exc:
        case ProfileNotFound():
            return _misconfigured(
                f"AWS's configuration has no profile {exc.kwargs.get('profile')!r} (AWS_PROFILE)"
            )
        case ConfigParseError() | ConfigNotFound() | InvalidConfigError():
            return _misconfigured(
                "AWS's configuration (AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE) cannot be read"
            )
        case NoRegionError():
            return _misconfigured(f"no region is set: {REGION}, AWS_DEFAULT_REGION or a profile")
        case InvalidRegionError():
            return _misconfigured(f"the name in {REGION} is not valid")
        case ParamValidationError():
            return _of_parameter(str(exc.kwargs.get("report", "")))
        case _:
            is_of_it = isinstance(exc, _OF_CONFIGURATION)
            return _misconfigured(_AWS_CONFIGURATION) if is_of_it else None


def error_for_client(exc: ValueError) -> OriginError:
    """Return the error for a client that cannot be made of the settings."""
    if known := error_for_settings(exc):
        return known
    if "endpoint" in str(exc).lower():
        return _misconfigured(f"the URL in {ENDPOINT} is not valid")
    return _misconfigured(_AWS_CONFIGURATION)


def error_for_file(exc: BaseException) -> OriginUnavailable | None:
    """Return the error for a file of AWS's configuration, None if it is no file's."""
    if not isinstance(exc, OSError) or exc.filename is None:
        return None
    names = [name for name, value in os.environ.items() if value == str(exc.filename)]
    which = f"the file of {names[0]}" if names else "a file of AWS's configuration or credentials"
    return OriginUnavailable(
        f"{which} cannot be read: {exc.strerror}", reason=reasons.CREDENTIALS_UNAVAILABLE
    )


def error_for_connection(exc: Exception) -> OriginUnavailable | None:
    """Return the error for a connection that was not made, None if it is another failure."""
    causes = list(_causes(exc))
    bundle = next((name for name in _CA_BUNDLES if os.environ.get(name)), None)
    if bundle and _any(causes, FileNotFoundError, PermissionError, IsADirectoryError):
        return _unreachable(f"the file of {bundle} cannot be read")
    if _any(causes, ProxyConnectionError, aiohttp.ClientProxyConnectionError):
        return _unreachable("the proxy (HTTPS_PROXY, HTTP_PROXY) could not be reached")
    if _any(causes, SSLError, ssl.SSLError, aiohttp.ClientSSLError):
        return _unreachable(
            f"TLS with {ENDPOINT} failed: its certificate is not trusted (AWS_CA_BUNDLE), has "
            "another name, or it speaks no TLS"
        )
    if _any(causes, ConnectTimeoutError):
        return None
    if _any(causes, socket.gaierror, aiohttp.ClientConnectorDNSError):
        return _unreachable(f"the host of {ENDPOINT}, or of AWS or a proxy, has no address: DNS")
    if _any(causes, ConnectionRefusedError):
        return _unreachable(f"nothing listens at {ENDPOINT}")
    if _any(causes, EndpointConnectionError):
        return _unreachable("the origin could not be reached")
    return None


def _of_parameter(report: str) -> OriginDenied:
    if "bucket" in report.lower():
        return _misconfigured(f"the name in {BUCKET} is not valid")
    return OriginDenied("the object's key is not valid", reason=reasons.KEY_REFUSED)


def _misconfigured(text: str) -> OriginDenied:
    return OriginDenied(text, reason=reasons.MISCONFIGURED)


def _no_credentials(text: str) -> OriginDenied:
    return OriginDenied(text, reason=reasons.NO_CREDENTIALS)


def _unreachable(text: str) -> OriginUnavailable:
    return OriginUnavailable(text, reason=reasons.UNREACHABLE)


def _any(causes: list[BaseException], *kinds: type[BaseException]) -> bool:
    return any(isinstance(cause, kinds) for cause in causes)


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Yield the exception and what caused it; the library keeps some causes in its arguments."""
    seen: list[BaseException] = []
    waiting: list[object] = [exc]
    while waiting:
        cause = waiting.pop()
        if isinstance(cause, BaseException) and not any(cause is one for one in seen):
            seen.append(cause)
            yield cause
            waiting += [cause.__cause__, cause.__context__]
            waiting += [getattr(cause, "os_error", None)]
            if isinstance(cause, BotoCoreError):
                waiting += [cause.kwargs.get("error")]
