"""How are whole objects read from and written to S3, however S3 behaves?

The only module that imports aioboto3. What the library leaves open is closed here:
its timeouts bound neither the wait for a connection nor a dripping body, its retries
end at the headers, and a body cut short can look whole. So: one deadline around
everything, our own limit below the pool's size, one retry of a damaged body, and an
answer counts only with its length, ETag and Last-Modified.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any, Literal

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    IncompleteReadError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from cachesvc import __version__
from cachesvc.core.errors import OriginDenied, OriginError, OriginUnavailable
from cachesvc.core.origin import OriginObject, OriginStamp
from cachesvc.core.tensors import Buffer
from cachesvc.origin import reasons
from cachesvc.origin.s3_codes import error_for_answer, error_for_bucket

# Three people's 11 members side by side; each connection holds one object in memory.
DEFAULT_MAX_CONCURRENT_READS = 32
# Writes are rare (Put with persist) and must not wait behind a burst of reads.
MAX_CONCURRENT_WRITES = 4
# Room in the pool beyond both limits, so that check() never waits for a slot.
_SPARE_CONNECTIONS = 4
# botocore's attempts until the headers, up to 1 s apart, all inside our deadline.
_HEADER_ATTEMPTS = 2
_MAX_CONNECT_TIMEOUT_S = 3.0
_EMPTY_ETAG = hashlib.md5(b"", usedforsecurity=False).hexdigest()
_CONTENT_TYPES = {".png": "image/png"}


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Which bucket, where, and how long and how much at most.

    `region` and `endpoint_url` None mean AWS's own configuration. Credentials come the
    AWS way (environment, profile, web identity, instance role), never from here.
    `deadline_s` bounds one call, its wait for a free connection included.
    """

    bucket: str
    region: str | None = None
    endpoint_url: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    deadline_s: float = reasons.DEFAULT_DEADLINE_S
    max_concurrent_reads: int = DEFAULT_MAX_CONCURRENT_READS
    max_object_bytes: int = reasons.DEFAULT_MAX_OBJECT_BYTES


class NotModified(Exception):
    """S3 still has what `stamp` says, with that Last-Modified. Stays in this module."""

    def __init__(self, stamp: OriginStamp) -> None:
        super().__init__(stamp.object_key)
        self.stamp = stamp


class S3Origin:
    """One bucket behind one long-lived client. See `core.origin.Origin` for the contract.

    Belongs to the event loop of its first call.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._reads = asyncio.Semaphore(settings.max_concurrent_reads)
        self._writes = asyncio.Semaphore(MAX_CONCURRENT_WRITES)
        self._checks = asyncio.Semaphore(1)
        self._opening: asyncio.Task[_OpenClient] | None = None
        self._in_flight: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def start(self) -> None:
        """Open the client now instead of in the first read. Asks S3 nothing.

        Raises OriginDenied or OriginUnavailable; the next call then tries again.
        """
        async with self._asking(self._checks):
            pass

    async def read(self, object_key: str) -> OriginObject:
        """Return the object. Raises NoSuchObject only if S3 named it NoSuchKey.

        Also raises OriginDataCorrupt, reason OBJECT_TOO_LARGE, before reading any of it.
        """
        async with self._asking(self._reads) as client:
            try:
                return await self._read_once(client, object_key)
            except OriginUnavailable as exc:
                # Until the headers botocore has retried already; a body is ours to retry.
                if exc.reason != reasons.BAD_ANSWER:
                    raise
            return await self._read_once(client, object_key)

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        """Return the object, or its stamp alone if S3 says Not Modified: then without a body."""
        async with self._asking(self._reads) as client:
            try:
                return await self._read_once(client, stamp.object_key, unless=stamp)
            except NotModified as unchanged:
                return unchanged.stamp
            except OriginUnavailable as exc:
                if exc.reason != reasons.BAD_ANSWER:
                    raise
            return await self._read_once(client, stamp.object_key)

    async def stamp(self, object_key: str) -> OriginStamp:
        """Return when the object was last changed, for the price of a request. Raises as `read`.

        A GET of one byte: a HEAD's refusal has no body, so it could not say NoSuchKey.
        """
        async with self._asking(self._reads) as client:
            with _s3_errors_of(object_key):
                answer = await client.get_object(
                    Bucket=self._settings.bucket, Key=object_key, Range="bytes=0-0"
                )
                async with answer["Body"] as body:
                    await body.read()
            return _stamp_of(object_key, answer)

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        """Replace the object. If cancelled or failed, it may have been replaced or not."""
        async with self._asking(self._writes) as client:
            with _s3_errors_of(object_key):
                put = await client.put_object(
                    Bucket=self._settings.bucket,
                    Key=object_key,
                    # A file, because aiohttp copies large bytes to the socket in one go.
                    Body=io.BytesIO(data),
                    ContentType=_content_type(object_key),
                )
                # A PUT does not answer Last-Modified, and its Date is a little later.
                head = await client.head_object(Bucket=self._settings.bucket, Key=object_key)
            return _stamp_of_write(object_key, put, head)

    async def check(self) -> None:
        """Return if the bucket answers and lets us in. Needs s3:ListBucket."""
        async with self._asking(self._checks) as client:
            with _s3_errors_of(None):
                await client.head_bucket(Bucket=self._settings.bucket)

    async def server_time(self) -> datetime | None:
        """Return what time S3 says it is, to the second, also where it lets nobody in."""
        async with self._asking(self._checks) as client:
            with _s3_errors_of(None):
                try:
                    answer = await client.head_bucket(Bucket=self._settings.bucket)
                except ClientError as exc:
                    answer = exc.response
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return None if date is None else parsedate_to_datetime(date)

    async def close(self) -> None:
        """Close the connections; calls in flight end with OriginUnavailable."""
        self._closed = True
        # A retry in flight would open a new session in a closed client, and leak it.
        now = asyncio.get_running_loop().time()
        for deadline in self._in_flight:
            if not deadline.expired():
                deadline.reschedule(now)
        await self._idle.wait()
        # Taken before the wait: one that fails meanwhile forgets itself.
        opening, self._opening = self._opening, None
        if opening is None:
            return
        # Awaited, not cancelled: its thread cannot be stopped anyway.
        await asyncio.wait({opening}, timeout=self._settings.deadline_s)
        if opening.done() and opening.exception() is None:
            await opening.result().context.__aexit__(None, None, None)

    async def _read_once(
        self, client: Any, object_key: str, unless: OriginStamp | None = None
    ) -> OriginObject:
        condition = {"IfNoneMatch": f'"{unless.etag}"'} if unless is not None else {}
        with _s3_errors_of(object_key, unless):
            answer = await client.get_object(
                Bucket=self._settings.bucket, Key=object_key, **condition
            )
            # An unread body keeps its connection: four of them killed a pool of four.
            async with answer["Body"] as body:
                size_bytes = _length_of(answer)
                if size_bytes > self._settings.max_object_bytes:
                    raise reasons.too_large(object_key, size_bytes, self._settings.max_object_bytes)
                stamp = _stamp_of(object_key, answer)
                data: bytes = await body.read()
            if len(data) != size_bytes:
                raise _bad_answer(f"{len(data)} of {size_bytes} bytes")
            if not data and stamp.etag != _EMPTY_ETAG:
                raise _bad_answer("no bytes for an object that is not empty")
            return OriginObject(stamp, data)

    @asynccontextmanager
    async def _asking(self, slots: asyncio.Semaphore) -> AsyncIterator[Any]:
        """Give the client, within the one deadline that holds for the queue as well."""
        if self._closed:
            raise reasons.closed()
        try:
            async with asyncio.timeout(self._settings.deadline_s) as deadline:
                with self._counted(deadline):
                    async with slots:
                        yield (await self._client()).client
        except TimeoutError as exc:
            if self._closed:
                raise reasons.closed() from exc
            raise reasons.timed_out(self._settings.deadline_s) from exc

    @contextmanager
    def _counted(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """Let close() end this call early, and wait for its end."""
        self._in_flight.add(deadline)
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight.discard(deadline)
            if not self._in_flight:
                self._idle.set()

    async def _client(self) -> _OpenClient:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="origin-s3-open")
        # Shielded: a caller that leaves must not take the client from the others.
        return await asyncio.shield(self._opening)

    async def _open(self) -> _OpenClient:
        # Loading the service's model blocks for 110-150 ms, and reading the
        # credentials may ask the network: neither belongs on the loop that serves hits.
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="origin-s3-open")
        try:
            with _s3_errors_of(None):
                return await asyncio.get_running_loop().run_in_executor(
                    thread, _open_client, self._settings
                )
        except BaseException:  # cancelled too
            self._opening = None  # the next call tries again
            raise
        finally:
            thread.shutdown(wait=False)


async def credentials_source(deadline_s: float) -> str | None:
    """Return which link of AWS's chain gives credentials, by botocore's name; None if none does.

    Such as `env`, `shared-credentials-file`, `iam-role`. Raises OriginError.
    """
    try:
        async with asyncio.timeout(deadline_s):
            with _s3_errors_of(None):
                found = await aioboto3.Session().get_credentials()
    except TimeoutError as exc:
        raise reasons.timed_out(deadline_s) from exc
    return None if found is None else str(found.method)


@dataclass(frozen=True, slots=True)
class _OpenClient:
    """The client, and the context that closes it."""

    context: Any
    client: Any


def _open_client(settings: S3Settings) -> _OpenClient:
    """Build the client on a loop of this thread. It binds no connection to that loop:

    aiobotocore opens its aiohttp session with the first request.
    """
    try:
        session = AioSession()
        session.get_component("response_parser_factory").set_parser_defaults(
            timestamp_parser=_parse_time
        )
        context = aioboto3.Session(botocore_session=session).client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint_url,
            config=_client_config(settings),
        )
        return _OpenClient(context, asyncio.run(_entered(context)))
    except ValueError as exc:
        raise OriginDenied(
            "the origin's endpoint or region is not valid", reason=reasons.MISCONFIGURED
        ) from exc
    except OSError as exc:
        raise OriginUnavailable(
            "the AWS configuration or credentials could not be read",
            reason=reasons.CREDENTIALS_UNAVAILABLE,
        ) from exc


async def _entered(context: Any) -> Any:
    return await context.__aenter__()


def _parse_time(value: Any) -> datetime:
    """Return the moment that an answer names, in any form that botocore knows.

    S3's headers have always the same form, and botocore's parser of all forms takes a tenth
    of a request's time. STS, which web identities ask in the same session, has another.
    """
    if isinstance(value, str) and value.endswith(" GMT"):
        return parsedate_to_datetime(value)
    parsed: datetime = parse_timestamp(value)
    return parsed


def _client_config(settings: S3Settings) -> AioConfig:
    over_tls = settings.endpoint_url is None or settings.endpoint_url.startswith("https:")
    return AioConfig(
        # botocore puts its own together anew, twice for each request, in 0.1 ms.
        user_agent=f"cachesvc/{__version__}",
        max_pool_connections=settings.max_concurrent_reads
        + MAX_CONCURRENT_WRITES
        + _SPARE_CONNECTIONS,
        connect_timeout=min(_MAX_CONNECT_TIMEOUT_S, settings.deadline_s / 3),
        # Half, so that a connection gone silent still leaves room for a second attempt.
        read_timeout=settings.deadline_s / 2,
        retries={"mode": "standard", "total_max_attempts": _HEADER_ATTEMPTS},
        # A 304 with a checksum header raises TypeError in the default, "when_supported".
        response_checksum_validation="when_required",
        # Ceph over TLS refuses the trailing checksums of the default.
        request_checksum_calculation="when_required",
        s3={
            "addressing_style": settings.addressing_style,
            # TLS protects the body already; hashing it again would block the loop.
            "payload_signing_enabled": not over_tls,
        },
    )


@contextmanager
def _s3_errors_of(object_key: str | None, unless: OriginStamp | None = None) -> Iterator[None]:
    """Turn what the library raises into our errors; `object_key` None means the bucket.

    Raises NotModified for the answer of that name, which only a request with `unless` gets.

    TimeoutError passes: it is the caller's deadline.
    """
    try:
        yield
    except ClientError as exc:
        code = str(exc.response.get("Error", {}).get("Code", ""))
        status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if unless is not None and status == HTTPStatus.NOT_MODIFIED:
            raise NotModified(_stamp_unmodified(unless, exc.response)) from exc
        if object_key is None:
            raise error_for_bucket(code, status) from exc
        raise error_for_answer(code, status, object_key) from exc
    # ValueError: a Last-Modified that is no date.
    except (BotoCoreError, ResponseParserError, aiohttp.ClientError, ValueError) as exc:
        raise _error_for_failure(exc) from exc


# The first that matches wins. What comes after the headers is a bad answer: botocore
# does not retry it, and part of it is aiohttp's own.
_FAILURES: tuple[tuple[tuple[type[Exception], ...], type[OriginError], str, str], ...] = (
    (
        (NoCredentialsError, PartialCredentialsError),
        OriginDenied,
        reasons.NO_CREDENTIALS,
        "no AWS credentials were found",
    ),
    (
        (CredentialRetrievalError,),
        OriginUnavailable,
        reasons.CREDENTIALS_UNAVAILABLE,
        "the AWS credentials could not be fetched",
    ),
    (
        (ParamValidationError, NoRegionError, ProfileNotFound),
        OriginDenied,
        reasons.MISCONFIGURED,
        "the bucket, region, profile or key is not valid",
    ),
    (
        (
            IncompleteReadError,
            ResponseStreamingError,
            ResponseParserError,
            aiohttp.ClientPayloadError,
            ValueError,
        ),
        OriginUnavailable,
        reasons.BAD_ANSWER,
        "the origin's answer was damaged on the way",
    ),
    (
        # TimeoutError: aiohttp's own, between two pieces of a body.
        (ReadTimeoutError, ConnectTimeoutError, TimeoutError),
        OriginUnavailable,
        reasons.TIMEOUT,
        "the origin did not answer in time",
    ),
)


def _error_for_failure(exc: Exception) -> OriginError:
    for kinds, error, reason, message in _FAILURES:
        if isinstance(exc, kinds):
            return error(message, reason=reason)
    return OriginUnavailable("the origin could not be reached", reason=reasons.UNREACHABLE)


def _bad_answer(what: str) -> OriginUnavailable:
    return OriginUnavailable(f"the origin's answer is damaged: {what}", reason=reasons.BAD_ANSWER)


def _length_of(answer: Mapping[str, Any]) -> int:
    """Return Content-Length. Without one, a body that was cut short would look whole."""
    size_bytes = answer.get("ContentLength")
    if not isinstance(size_bytes, int):
        raise _bad_answer("no Content-Length")
    return size_bytes


def _stamp_of(object_key: str, answer: Mapping[str, Any]) -> OriginStamp:
    etag, last_modified = answer.get("ETag"), answer.get("LastModified")
    if not etag or last_modified is None:
        raise _bad_answer("no ETag or no Last-Modified")
    return OriginStamp(object_key, _unquoted(etag), last_modified.timestamp())


def _stamp_of_write(
    object_key: str, put: Mapping[str, Any], head: Mapping[str, Any]
) -> OriginStamp:
    """Return the stamp of what was put, not of what may have replaced it since.

    Us: PUT a -> etag 1 | another: PUT b -> etag 2 | us: HEAD -> etag 2, later time.
    Our bytes under etag 2 would pass for current for ever, so then the PUT's own
    Date counts, which is no later than the other's.
    """
    stamp = _stamp_of(object_key, head)
    etag = _unquoted(put.get("ETag", ""))
    if etag == stamp.etag:
        return stamp
    date = put.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if not etag or date is None:
        raise _bad_answer("no ETag or no Date for a PUT")
    return OriginStamp(object_key, etag, parsedate_to_datetime(date).timestamp())


def _stamp_unmodified(known: OriginStamp, response: Mapping[str, Any]) -> OriginStamp:
    """Return the stamp with the time that S3 names now: the same bytes may have come again."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    date = headers.get("last-modified")
    if date is None:
        return known
    try:
        last_modified_s = parsedate_to_datetime(date).timestamp()
    except ValueError as exc:
        raise _bad_answer("a Last-Modified that is no date") from exc
    return OriginStamp(known.object_key, known.etag, last_modified_s)


def _unquoted(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _content_type(object_key: str) -> str:
    suffix = PurePosixPath(object_key).suffix
    return _CONTENT_TYPES.get(suffix, "application/octet-stream")
