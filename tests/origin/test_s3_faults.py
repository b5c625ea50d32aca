"""Does every fault of an S3 answer end in the right error, in time, and harm no later read?

Promise 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from cachesvc import __version__
from cachesvc.core.errors import CacheError, HostBusy, OriginDenied, OriginUnavailable
from cachesvc.core.origin import OriginObject, OriginStamp
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import S3Settings
from tests.origin.conftest import open_client, use_environment
from tests.support.descriptors import no_descriptors_left
from tests.support.s3.faults import BODY, PUT_DATE, Fault, FaultyS3, running_faulty_s3

_MAX_READS = 2
# More than the pool has connections, so one leak per failure would empty it.
_FAILURES = 12
_SHORT_S = 1.5
_AMPLE_S = 20.0

FAULTS = [
    (Fault.HANGS_BEFORE_HEADERS, OriginUnavailable, "ORIGIN_TIMEOUT"),
    (Fault.HANGS_IN_BODY, OriginUnavailable, "ORIGIN_TIMEOUT"),
    (Fault.DRIPS, OriginUnavailable, "ORIGIN_TIMEOUT"),
    (Fault.TRUNCATES_WITH_LENGTH, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.TRUNCATES_WITHOUT_LENGTH, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.EMPTY_200, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.NO_STAMP, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.BAD_DATE, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.SAYS_500, OriginUnavailable, "ORIGIN_SERVER_ERROR"),
    (Fault.SAYS_503, OriginUnavailable, "ORIGIN_THROTTLED"),
    (Fault.SAYS_403, OriginDenied, "ORIGIN_ACCESS_DENIED"),
    (Fault.SAYS_404_AS_A_PROXY_DOES, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.RESETS_BEFORE_HEADERS, OriginUnavailable, "ORIGIN_UNREACHABLE"),
    (Fault.RESETS_IN_BODY, OriginUnavailable, "ORIGIN_BAD_ANSWER"),
    (Fault.SPEAKS_NO_HTTP, OriginUnavailable, "ORIGIN_UNREACHABLE"),
]
# The stamp of the object as it was before; its bytes have changed since.
_OTHER = OriginStamp("photo.png", "another-etag", 0.0)
_STS_XML = b"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>FROMSTS</AccessKeyId>
<SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>
<Expiration>2199-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
_STS_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_STS_XML),
    _STS_XML,
)
_HANGS = (Fault.HANGS_BEFORE_HEADERS, Fault.HANGS_IN_BODY, Fault.DRIPS)


@pytest.fixture
async def faulty_s3(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyS3]:
    use_environment(monkeypatch, {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"})
    async with running_faulty_s3() as server:
        yield server


@asynccontextmanager
async def origin_of(server: FaultyS3, deadline_s: float = _AMPLE_S) -> AsyncIterator[S3Origin]:
    origin = S3Origin(
        S3Settings(
            bucket="bucket",
            region="us-east-1",
            endpoint_url=server.endpoint_url,
            addressing_style="path",
            deadline_s=deadline_s,
            max_concurrent_reads=_MAX_READS,
        )
    )
    # The tests measure S3's faults, not how fast this machine opens a client.
    await open_client(origin)
    try:
        yield origin
    finally:
        await origin.close()


@pytest.mark.parametrize(
    ("fault", "error", "reason"), FAULTS, ids=[fault.name for fault, _, _ in FAULTS]
)
async def test_a_fault_has_its_error_and_leaves_the_client_usable(
    faulty_s3: FaultyS3, fault: Fault, error: type[CacheError], reason: str
) -> None:
    deadline_s = _SHORT_S if fault in _HANGS else _AMPLE_S
    async with origin_of(faulty_s3, deadline_s) as origin:
        faulty_s3.fault = fault
        # The deadline includes the queue: all reads end with it, not one after another.
        async with asyncio.timeout(deadline_s + 5):
            results = await asyncio.gather(
                *(origin.read("photo.png") for _ in range(_FAILURES)), return_exceptions=True
            )
        assert {(type(result), getattr(result, "reason", result)) for result in results} == {
            (error, reason)
        }

        faulty_s3.fault = Fault.NONE
        assert await read_all_slots(origin) == [BODY] * (_MAX_READS + 1)


@pytest.mark.parametrize(
    ("fault", "error", "reason"), FAULTS, ids=[fault.name for fault, _, _ in FAULTS]
)
async def test_a_conditional_read_has_the_error_of_a_read(
    faulty_s3: FaultyS3, fault: Fault, error: type[CacheError], reason: str
) -> None:
    deadline_s = _SHORT_S if fault in _HANGS else _AMPLE_S
    async with origin_of(faulty_s3, deadline_s) as origin:
        faulty_s3.fault = fault
        with pytest.raises(error) as caught:
            await origin.read_if_changed(_OTHER)
        assert caught.value.reason == reason

        faulty_s3.fault = Fault.NONE
        assert await read_all_slots(origin) == [BODY] * (_MAX_READS + 1)


@pytest.mark.parametrize(
    ("fault", "last_modified"),
    [
        (Fault.NOT_MODIFIED, "Mon, 02 Nov 2026 11:00:00 GMT"),
        (Fault.NOT_MODIFIED_WITH_CHECKSUM, "Mon, 02 Nov 2026 11:00:00 GMT"),
        (Fault.NOT_MODIFIED_WITHOUT_DATE, "Mon, 02 Nov 2026 10:00:00 GMT"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_not_modified_is_the_stamp_with_the_time_that_s3_says_now(
    faulty_s3: FaultyS3, fault: Fault, last_modified: str
) -> None:
    async with origin_of(faulty_s3) as origin:
        read = await origin.read("photo.png")
        faulty_s3.fault = fault
        # More than there are connections: an answer without a body gives its connection back.
        for _ in range(_FAILURES):
            found = await origin.read_if_changed(read.stamp)
            assert found == OriginStamp(
                "photo.png", read.stamp.etag, parsedate_to_datetime(last_modified).timestamp()
            )
        conditional = faulty_s3.heads[1:]
        assert len(conditional) == _FAILURES
        assert all(b'If-None-Match: "0123456789abcdef"' in head for head in conditional)


async def test_a_request_says_who_asks(faulty_s3: FaultyS3) -> None:
    async with origin_of(faulty_s3) as origin:
        await origin.read("photo.png")
    assert f"User-Agent: cachesvc/{__version__} ".encode() in faulty_s3.heads[0]


async def test_credentials_of_a_web_identity_are_asked_for_with_its_token(
    faulty_s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # STS writes times as ISO 8601, S3's headers as HTTP does; one session reads both.
    token = tmp_path / "token"
    token.write_text("a-web-identity")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"a-web-identity")
        writer.write(_STS_ANSWER)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as sts:
        port = sts.sockets[0].getsockname()[1]
        use_environment(
            monkeypatch,
            {
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
                "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
                "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{port}",
            },
        )
        async with origin_of(faulty_s3) as origin:
            assert (await origin.read("photo.png")).data == BODY
    assert b"Credential=FROMSTS/" in faulty_s3.heads[0]


async def test_a_changed_object_comes_with_the_one_conditional_request(faulty_s3: FaultyS3) -> None:
    async with origin_of(faulty_s3) as origin:
        found = await origin.read_if_changed(_OTHER)
        assert isinstance(found, OriginObject)
        assert found.data == BODY
        assert faulty_s3.requests == 1


async def test_a_damaged_not_modified_is_asked_again_without_the_condition(
    faulty_s3: FaultyS3,
) -> None:
    async with origin_of(faulty_s3) as origin:
        read = await origin.read("photo.png")
        faulty_s3.fault = Fault.NOT_MODIFIED_WITH_BAD_DATE
        assert await origin.read_if_changed(read.stamp) == read
        assert [b"if-none-match" in head.lower() for head in faulty_s3.heads] == [
            False,
            True,
            False,
        ]


@pytest.mark.parametrize("fault", [Fault.HANGS_BEFORE_HEADERS, Fault.HANGS_IN_BODY])
async def test_reads_cancelled_in_the_middle_hold_nothing(
    faulty_s3: FaultyS3, fault: Fault
) -> None:
    async with origin_of(faulty_s3) as origin:
        faulty_s3.fault = fault
        for _ in range(_FAILURES // _MAX_READS):
            reads = [asyncio.create_task(origin.read("photo.png")) for _ in range(_MAX_READS)]
            for _ in reads:
                await faulty_s3.hanging.acquire()
            for read in reads:
                read.cancel()
            ended = await asyncio.gather(*reads, return_exceptions=True)
            assert {type(result) for result in ended} == {asyncio.CancelledError}

        faulty_s3.fault = Fault.NONE
        assert await read_all_slots(origin) == [BODY] * (_MAX_READS + 1)


async def test_a_body_damaged_twice_is_not_read_a_third_time(faulty_s3: FaultyS3) -> None:
    async with origin_of(faulty_s3) as origin:
        faulty_s3.fault = Fault.TRUNCATES_WITH_LENGTH

        with pytest.raises(OriginUnavailable):
            await origin.read("photo.png")

        assert faulty_s3.requests == 2


async def read(origin: S3Origin) -> OriginObject:
    return await origin.read("photo.png")


async def read_if_changed(origin: S3Origin) -> OriginObject:
    found = await origin.read_if_changed(_OTHER)
    assert isinstance(found, OriginObject)
    return found


@pytest.mark.parametrize("ask", [read, read_if_changed])
async def test_an_empty_object_whose_etag_is_no_hash_is_empty_once_it_was_so_twice(
    faulty_s3: FaultyS3, ask: Callable[[S3Origin], Awaitable[OriginObject]]
) -> None:
    async with origin_of(faulty_s3, _AMPLE_S) as origin:
        faulty_s3.fault = Fault.EMPTY_200_WITH_STAMP
        assert (await ask(origin)).data == b""
        assert faulty_s3.requests == 2


@pytest.mark.parametrize("ask", [read, read_if_changed])
@pytest.mark.parametrize(
    "first", [Fault.EMPTY_200_WITH_STAMP, Fault.EMPTY_200, Fault.TRUNCATES_WITHOUT_LENGTH]
)
async def test_an_object_whose_first_answer_was_cut_is_read_again(
    faulty_s3: FaultyS3, ask: Callable[[S3Origin], Awaitable[OriginObject]], first: Fault
) -> None:
    async with origin_of(faulty_s3, _AMPLE_S) as origin:
        faulty_s3.next_faults = [first, Fault.NONE]
        assert (await ask(origin)).data == BODY
        assert faulty_s3.requests == 2


@pytest.mark.parametrize("ask", [read, read_if_changed])
async def test_one_empty_answer_after_a_damaged_one_does_not_make_the_object_empty(
    faulty_s3: FaultyS3, ask: Callable[[S3Origin], Awaitable[OriginObject]]
) -> None:
    async with origin_of(faulty_s3, _AMPLE_S) as origin:
        faulty_s3.next_faults = [Fault.TRUNCATES_WITH_LENGTH, Fault.EMPTY_200_WITH_STAMP]
        with pytest.raises(OriginUnavailable) as caught:
            await ask(origin)
        assert caught.value.reason == "ORIGIN_BAD_ANSWER"
        assert faulty_s3.requests == 2


async def test_a_connection_for_which_this_host_has_no_descriptor_is_not_the_origins_failure(
    faulty_s3: FaultyS3,
) -> None:
    async with origin_of(faulty_s3, _AMPLE_S) as origin:
        await origin.read("photo.png")
        faulty_s3.fault = Fault.TRUNCATES_WITH_LENGTH  # closes the open connection
        with pytest.raises(OriginUnavailable):
            await origin.read("photo.png")
        faulty_s3.fault = Fault.NONE
        with no_descriptors_left(), pytest.raises(HostBusy) as caught:
            await origin.read("photo.png")
        assert caught.value.reason == "HOST_RESOURCES"
        assert (await origin.read("photo.png")).data == BODY


async def test_a_refusal_is_not_asked_again(faulty_s3: FaultyS3) -> None:
    async with origin_of(faulty_s3) as origin:
        faulty_s3.fault = Fault.SAYS_403

        with pytest.raises(OriginDenied):
            await origin.read("photo.png")

        assert faulty_s3.requests == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.HANGS_BEFORE_HEADERS, "ORIGIN_TIMEOUT"),
        (Fault.SAYS_500, "ORIGIN_SERVER_ERROR"),
        (Fault.RESETS_BEFORE_HEADERS, "ORIGIN_UNREACHABLE"),
        (Fault.EMPTY_200, "ORIGIN_BAD_ANSWER"),
    ],
)
async def test_a_write_that_fails_says_so_in_time_and_the_next_one_works(
    faulty_s3: FaultyS3, fault: Fault, reason: str
) -> None:
    deadline_s = _SHORT_S if fault in _HANGS else _AMPLE_S
    async with origin_of(faulty_s3, deadline_s) as origin:
        faulty_s3.fault = fault
        async with asyncio.timeout(deadline_s + 5):
            with pytest.raises(OriginUnavailable) as caught:
                await origin.write("photo.png", BODY)
        assert caught.value.reason == reason

        faulty_s3.fault = Fault.NONE
        assert (await origin.write("photo.png", BODY)).etag == "0123456789abcdef"


async def test_a_write_that_another_overtakes_keeps_its_own_etag_and_earlier_time(
    faulty_s3: FaultyS3,
) -> None:
    async with origin_of(faulty_s3) as origin:
        faulty_s3.fault = Fault.IS_OVERWRITTEN_AFTER_PUT

        written = await origin.write("photo.png", BODY)
        found = await origin.read("photo.png")

        assert written.etag == "ours"
        assert written.last_modified_s == parsedate_to_datetime(PUT_DATE.decode()).timestamp()
        assert written.last_modified_s < found.stamp.last_modified_s
        assert written.etag != found.stamp.etag


async def test_closing_ends_the_reads_in_flight_with_an_error(faulty_s3: FaultyS3) -> None:
    async with origin_of(faulty_s3) as origin:
        faulty_s3.fault = Fault.HANGS_IN_BODY
        read = asyncio.create_task(origin.read("photo.png"))
        await faulty_s3.hanging.acquire()

        await origin.close()

        # Long before the read's own deadline.
        async with asyncio.timeout(_AMPLE_S / 4):
            with pytest.raises(OriginUnavailable) as caught:
                await read
        assert caught.value.reason == "ORIGIN_CLOSED"
        assert faulty_s3.requests == 1


async def read_all_slots(origin: S3Origin) -> list[bytes]:
    """Read once more often than there are slots; a lost slot or connection would block the last."""
    found = await asyncio.gather(*(origin.read("photo.png") for _ in range(_MAX_READS + 1)))
    return [obj.data for obj in found]
