"""Which of our errors stands for an exception of the S3 library?

botocore raises for S3's answers and our arguments, aiohttp for failures behind the headers.
`s3_codes.py` has the meaning of S3's own codes, `s3_unasked.py` of what kept S3 from being asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from cachesvc.core.errors import OriginError, OriginUnavailable
from cachesvc.core.origin import OriginStamp
from cachesvc.origin import reasons
from cachesvc.origin.s3_answers import stamp_unmodified
from cachesvc.origin.s3_codes import Refusal, error_for
from cachesvc.origin.s3_unasked import error_for_connection, error_for_file, error_for_settings


class NotModified(Exception):
    """S3 still has the object of `stamp`, with its Last-Modified. Stays in the origin."""

    def __init__(self, stamp: OriginStamp) -> None:
        super().__init__(stamp.object_key)
        self.stamp = stamp


# ValueError: a Last-Modified that is no date.
_OF_THE_LIBRARY = (BotoCoreError, ResponseParserError, aiohttp.ClientError, ValueError)
_OF_THIS_HOST = (OSError, MemoryError, RuntimeError)


@contextmanager
def s3_errors_of(object_key: str | None, unless: OriginStamp | None = None) -> Iterator[None]:
    """Turn the library's exceptions into our errors; `object_key` None means the bucket.

    Raises NotModified if S3 answers so to a request with `unless`. TimeoutError passes: it is the
    caller's deadline.
    """
    try:
        yield
    except ClientError as exc:
        refusal = Refusal.of(exc.response, exc.operation_name)
        if unless is not None and refusal.status == HTTPStatus.NOT_MODIFIED:
            raise NotModified(stamp_unmodified(unless, exc.response)) from exc
        raise error_for(refusal, object_key or "") from exc
    except _OF_THE_LIBRARY as exc:
        raise (reasons.lack_of_this_host(exc) or _error_for_failure(exc)) from exc
    except _OF_THIS_HOST as exc:
        if error := reasons.lack_of_this_host(exc) or error_for_file(exc):
            raise error from exc
        raise


# The first match wins. A failure after the headers is a bad answer: botocore does not
# retry it, and some of these exceptions are aiohttp's own.
_FAILURES: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    (
        (
            IncompleteReadError,
            ResponseStreamingError,
            ResponseParserError,
            aiohttp.ClientPayloadError,
            ValueError,
        ),
        reasons.BAD_ANSWER,
        "the origin's answer was damaged on the way",
    ),
    (
        # TimeoutError: aiohttp's own, between two pieces of a body.
        (ReadTimeoutError, ConnectTimeoutError, TimeoutError),
        reasons.TIMEOUT,
        "the origin did not answer in time",
    ),
)


def _error_for_failure(exc: Exception) -> OriginError:
    if (error := error_for_settings(exc)) or (error := error_for_connection(exc)):
        return error
    for kinds, reason, message in _FAILURES:
        if isinstance(exc, kinds):
            return OriginUnavailable(message, reason=reason)
    return OriginUnavailable("the origin could not be reached", reason=reasons.UNREACHABLE)
