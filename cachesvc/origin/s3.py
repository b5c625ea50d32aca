"""How are whole objects read from and written to S3, however S3 behaves?

This module closes the library's gaps: its timeouts bound neither the wait for a connection
nor a slow body, its retries end at the headers, and a body cut short can look whole. So one
deadline bounds each call, our own limit is below the pool's size, a damaged body is read once
more, and an answer needs its length, ETag and Last-Modified.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from typing import Any

from botocore.exceptions import ClientError

from cachesvc.config import OriginSettings
from cachesvc.core.errors import OriginDenied, OriginUnavailable
from cachesvc.core.origin import DatedOrigin, OriginObject, OriginStamp
from cachesvc.core.parts_file import PartsFile
from cachesvc.core.tensors import Buffer
from cachesvc.origin import reasons
from cachesvc.origin.s3_answers import bad_answer, length_of, stamp_of, stamp_of_write
from cachesvc.origin.s3_client import (
    MAX_CONCURRENT_WRITES,
    OpenClient,
    S3Settings,
    open_client,
)
from cachesvc.origin.s3_failures import NotModified, s3_errors_of

_EMPTY_ETAG = hashlib.md5(b"", usedforsecurity=False).hexdigest()
# A policy may allow listing below the prefixes of people only.
CHECKED_PREFIX = "users/cachesvc-doctor/vton-cache/"
_CONTENT_TYPES = {".png": "image/png"}


def from_settings(settings: OriginSettings, max_object_bytes: int) -> DatedOrigin:
    """Return the origin of the settings' bucket, not started yet."""
    return S3Origin(
        S3Settings(
            bucket=settings.bucket,
            region=settings.region or None,
            endpoint_url=settings.endpoint_url or None,
            deadline_s=settings.deadline_s,
            max_concurrent_reads=settings.max_concurrent_reads,
            max_object_bytes=max_object_bytes,
        )
    )


class S3Origin:
    """One bucket behind one long-lived client. See `core.origin.Origin` for the contract.

    Belongs to the event loop of its first call.
    """

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._reads = asyncio.Semaphore(settings.max_concurrent_reads)
        self._writes = asyncio.Semaphore(MAX_CONCURRENT_WRITES)
        self._checks = asyncio.Semaphore(1)
        self._opening: asyncio.Task[OpenClient] | None = None
        self._in_flight: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def start(self) -> None:
        """Open the client now instead of in the first read. Sends S3 no request.

        Raises OriginDenied or OriginUnavailable; the next call then tries again.
        """
        async with self._asking(self._checks):
            pass

    async def read(self, object_key: str) -> OriginObject:
        """Return the object. Raises NoSuchObject only if S3 named it NoSuchKey.

        Also raises OriginDataCorrupt, reason OBJECT_TOO_LARGE, before reading the body.
        """
        async with self._asking(self._reads) as client:
            return await self._read_surely(client, object_key)

    async def read_if_changed(self, stamp: OriginStamp) -> OriginObject | OriginStamp:
        """Return the object, or its stamp alone if S3 answers Not Modified, without a body."""
        async with self._asking(self._reads) as client:
            try:
                return await self._read_surely(client, stamp.object_key, unless=stamp)
            except NotModified as unchanged:
                return unchanged.stamp

    async def stamp(self, object_key: str) -> OriginStamp:
        """Return the object's stamp with one request. Raises as `read`.

        A GET of one byte: a refused HEAD has no body, so S3 could not say NoSuchKey.
        """
        answer, _ = await self._read_range(object_key, 1)
        return stamp_of(object_key, answer)

    async def read_start(self, object_key: str, size_bytes: int) -> bytes:
        """Return the object's first bytes with one request."""
        try:
            answer, data = await self._read_range(object_key, size_bytes)
        except OriginDenied as exc:
            if _is_of_an_empty_object(exc):
                return b""
            raise
        if len(data) != length_of(answer):
            raise bad_answer(f"{len(data)} of {length_of(answer)} bytes")
        return data

    async def write(self, object_key: str, data: Buffer) -> OriginStamp:
        """Replace the object. If cancelled or failed, it may have been replaced or not."""
        async with self._asking(self._writes) as client:
            with s3_errors_of(object_key):
                put = await client.put_object(
                    Bucket=self._settings.bucket,
                    Key=object_key,
                    # A file, because aiohttp copies large bytes to the socket at once; PartsFile
                    # copies nothing beforehand.
                    Body=PartsFile((data,)),
                    ContentType=_content_type(object_key),
                )
                # The answer to a PUT has no Last-Modified, and its Date is a little later.
                head = await client.head_object(Bucket=self._settings.bucket, Key=object_key)
            return stamp_of_write(object_key, put, head)

    async def check(self) -> None:
        """Return if the bucket answers and permits access; raise otherwise. Needs s3:ListBucket."""
        async with self._asking(self._checks) as client:
            with s3_errors_of(None):
                # The answer to a HEAD has no body, so S3 could not say why it refuses.
                await client.list_objects_v2(
                    Bucket=self._settings.bucket, Prefix=CHECKED_PREFIX, MaxKeys=1
                )

    async def server_time(self) -> datetime | None:
        """Return S3's time, to the second, even if S3 refuses access."""
        async with self._asking(self._checks) as client:
            with s3_errors_of(None):
                try:
                    answer = await client.head_bucket(Bucket=self._settings.bucket)
                except ClientError as exc:
                    answer = exc.response
        date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return None if date is None else parsedate_to_datetime(date)

    async def close(self) -> None:
        """Close the connections; calls in flight end with OriginUnavailable."""
        self._closed = True
        # End calls in flight: their retries would open a session in a closed client, and leak it.
        now = asyncio.get_running_loop().time()
        for deadline in self._in_flight:
            if not deadline.expired():
                deadline.reschedule(now)
        await self._idle.wait()
        # Take the task before waiting for it: a failed opening sets `_opening` to None.
        opening, self._opening = self._opening, None
        if opening is None:
            return
        # Wait for the task, and do not cancel it: its thread cannot be stopped anyway.
        await asyncio.wait({opening}, timeout=self._settings.deadline_s)
        if opening.done() and opening.exception() is None:
            await opening.result().context.__aexit__(None, None, None)

    async def _read_surely(
        self, client: Any, object_key: str, unless: OriginStamp | None = None
    ) -> OriginObject:
        """Return the object, read once more if the first answer was damaged or had no bytes.

        The second read has no condition. An empty object is returned only if its ETag is that of
        no bytes, or if both answers were empty: the ETag of a multipart or KMS-encrypted upload is
        no hash of the bytes, so one empty answer may be a proxy's short one. Raises NotModified.
        """
        first: OriginObject | None = None
        try:
            first = await self._read_once(client, object_key, unless)
            if not _may_be_cut(first):
                return first
        except OriginUnavailable as exc:
            # botocore has retried a failure before the headers; we retry a damaged body.
            if exc.reason != reasons.BAD_ANSWER:
                raise
        second = await self._read_once(client, object_key)
        if first is None and _may_be_cut(second):
            raise bad_answer("no bytes, after an answer that was damaged")
        return second

    async def _read_range(self, object_key: str, size_bytes: int) -> tuple[Any, bytes]:
        """Return the answer to a GET of the first bytes, and these."""
        async with self._asking(self._reads) as client:
            with s3_errors_of(object_key):
                answer = await client.get_object(
                    Bucket=self._settings.bucket,
                    Key=object_key,
                    Range=f"bytes=0-{size_bytes - 1}",
                )
                async with answer["Body"] as body:
                    return answer, await body.read()

    async def _read_once(
        self, client: Any, object_key: str, unless: OriginStamp | None = None
    ) -> OriginObject:
        condition = {"IfNoneMatch": f'"{unless.etag}"'} if unless is not None else {}
        with s3_errors_of(object_key, unless):
            answer = await client.get_object(
                Bucket=self._settings.bucket, Key=object_key, **condition
            )
            # An unread body keeps its connection: four unread bodies killed a pool of four.
            async with answer["Body"] as body:
                size_bytes = length_of(answer)
                if size_bytes > self._settings.max_object_bytes:
                    raise reasons.too_large(object_key, size_bytes, self._settings.max_object_bytes)
                stamp = stamp_of(object_key, answer)
                data: bytes = await body.read()
            if len(data) != size_bytes:
                raise bad_answer(f"{len(data)} of {size_bytes} bytes")
            return OriginObject(stamp, data)

    @asynccontextmanager
    async def _asking(self, slots: asyncio.Semaphore) -> AsyncIterator[Any]:
        """Yield the client. One deadline bounds the wait for a slot and the call."""
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
        """Let close() end this call early and wait for its end."""
        self._in_flight.add(deadline)
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight.discard(deadline)
            if not self._in_flight:
                self._idle.set()

    async def _client(self) -> OpenClient:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="origin-s3-open")
        # Shielded: a cancelled caller must not cancel the opening for the others.
        return await asyncio.shield(self._opening)

    async def _open(self) -> OpenClient:
        try:
            return await open_client(self._settings)
        except BaseException:  # cancelled too
            self._opening = None  # the next call tries again
            raise


def _is_of_an_empty_object(exc: OriginDenied) -> bool:
    """Return whether S3 refused a range from byte 0: an object without bytes has none."""
    cause = exc.__cause__
    return isinstance(cause, ClientError) and cause.response["Error"].get("Code") == "InvalidRange"


def _may_be_cut(found: OriginObject) -> bool:
    return not found.data and found.stamp.etag != _EMPTY_ETAG


def _content_type(object_key: str) -> str:
    suffix = PurePosixPath(object_key).suffix
    return _CONTENT_TYPES.get(suffix, "application/octet-stream")
