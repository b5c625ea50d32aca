"""How does S3 misbehave? A scripted server that does it on demand.

It answers every GET, HEAD and PUT by the `Fault` set at that moment; NONE is a well-behaved store
in which every object has the same bytes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

BODY = b"tensor " * 1000
_DRIP_INTERVAL_S = 0.05
PUT_DATE = b"Mon, 02 Nov 2026 09:00:00 GMT"
_STAMP = b'ETag: "0123456789abcdef"\r\nLast-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\n'
_OK = b"HTTP/1.1 200 OK\r\n" + _STAMP
_NOT_MODIFIED = b'HTTP/1.1 304 Not Modified\r\nETag: "0123456789abcdef"\r\n'
_DATE_OF_304 = b"Last-Modified: Mon, 02 Nov 2026 11:00:00 GMT\r\n"
# S3 sends an object's checksum with a 304 too, whose empty body does not match it.
_CHECKSUM = b"x-amz-checksum-crc32: AAAAAA==\r\nx-amz-checksum-type: FULL_OBJECT\r\n"
_XML = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>no</Message></Error>'


_LISTING = b"<ListBucketResult><Name>bucket</Name><KeyCount>0</KeyCount></ListBucketResult>"


class Fault(Enum):
    """What the server does instead of answering well."""

    NONE = auto()
    HANGS_BEFORE_HEADERS = auto()
    HANGS_IN_BODY = auto()
    DRIPS = auto()
    TRUNCATES_WITH_LENGTH = auto()
    TRUNCATES_WITHOUT_LENGTH = auto()
    EMPTY_200 = auto()
    EMPTY_200_WITH_STAMP = auto()
    NO_STAMP = auto()
    BAD_DATE = auto()
    SAYS_500 = auto()
    SAYS_503 = auto()
    SAYS_403 = auto()
    SAYS_404_AS_A_PROXY_DOES = auto()
    RESETS_BEFORE_HEADERS = auto()
    RESETS_IN_BODY = auto()
    SPEAKS_NO_HTTP = auto()
    IS_OVERWRITTEN_AFTER_PUT = auto()
    NOT_MODIFIED = auto()
    NOT_MODIFIED_WITHOUT_DATE = auto()
    NOT_MODIFIED_WITH_CHECKSUM = auto()
    NOT_MODIFIED_WITH_BAD_DATE = auto()
    REFUSES = auto()


def _refusal(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def _answers(body: bytes) -> dict[Fault, bytes]:
    whole = _OK + b"Content-Length: %d\r\n\r\n" % len(body)
    return {
        Fault.NONE: whole + body,
        Fault.HANGS_BEFORE_HEADERS: b"",
        Fault.HANGS_IN_BODY: whole + body[:100],
        Fault.DRIPS: whole,
        Fault.TRUNCATES_WITH_LENGTH: whole + body[:100],
        Fault.TRUNCATES_WITHOUT_LENGTH: _OK + b"Connection: close\r\n\r\n" + body[:100],
        Fault.EMPTY_200: b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Fault.EMPTY_200_WITH_STAMP: _OK + b"Content-Length: 0\r\n\r\n",
        Fault.NO_STAMP: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        Fault.BAD_DATE: whole.replace(b"Mon, 02 Nov 2026 10:00:00 GMT", b"yesterday") + body,
        Fault.SAYS_500: _refusal(b"500 Internal Server Error", _XML % b"InternalError"),
        Fault.SAYS_503: _refusal(b"503 Slow Down", _XML % b"SlowDown"),
        Fault.SAYS_403: _refusal(b"403 Forbidden", _XML % b"AccessDenied"),
        Fault.SAYS_404_AS_A_PROXY_DOES: _refusal(b"404 Not Found", b"<html>no backend</html>"),
        Fault.RESETS_BEFORE_HEADERS: b"",
        Fault.RESETS_IN_BODY: whole + body[:100],
        Fault.SPEAKS_NO_HTTP: b"SSH-2.0-OpenSSH_9.2\r\n",
        Fault.IS_OVERWRITTEN_AFTER_PUT: whole + body,
        Fault.NOT_MODIFIED: _NOT_MODIFIED + _DATE_OF_304 + b"\r\n",
        Fault.NOT_MODIFIED_WITHOUT_DATE: _NOT_MODIFIED + b"\r\n",
        Fault.NOT_MODIFIED_WITH_CHECKSUM: _NOT_MODIFIED + _CHECKSUM + _DATE_OF_304 + b"\r\n",
        Fault.NOT_MODIFIED_WITH_BAD_DATE: _NOT_MODIFIED + b"Last-Modified: yesterday\r\n\r\n",
    }


_PUT_ANSWER = (
    b'HTTP/1.1 200 OK\r\nETag: "%s"\r\nDate: ' + PUT_DATE + b"\r\nContent-Length: 0\r\n\r\n"
)
_PUT_ANSWERS = {
    Fault.NONE: _PUT_ANSWER % b"0123456789abcdef",
    Fault.IS_OVERWRITTEN_AFTER_PUT: _PUT_ANSWER % b"ours",
}
_HANGS = {Fault.HANGS_BEFORE_HEADERS, Fault.HANGS_IN_BODY}
_RESETS = {Fault.RESETS_BEFORE_HEADERS, Fault.RESETS_IN_BODY}
_NOT_MODIFIEDS = {
    Fault.NOT_MODIFIED,
    Fault.NOT_MODIFIED_WITHOUT_DATE,
    Fault.NOT_MODIFIED_WITH_CHECKSUM,
    Fault.NOT_MODIFIED_WITH_BAD_DATE,
}
_ENDS_THE_CONNECTION = {
    Fault.TRUNCATES_WITH_LENGTH,
    Fault.TRUNCATES_WITHOUT_LENGTH,
    Fault.SPEAKS_NO_HTTP,
}


def _answer(answers: dict[Fault, bytes], fault: Fault, head: bytes) -> bytes:
    if fault in _NOT_MODIFIEDS and b"if-none-match:" not in head.lower():
        fault = Fault.NONE
    answer = answers[fault]
    if fault is Fault.NONE and b"list-type=2" in head.partition(b"\r\n")[0]:
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(_LISTING), _LISTING)
    if head.startswith(b"HEAD"):
        return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    if head.startswith(b"PUT"):
        return _PUT_ANSWERS.get(fault, answer)
    return answer


async def _read_body(
    head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    headers = dict(line.lower().split(b": ", 1) for line in head.splitlines() if b": " in line)
    if b"expect" in headers:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await reader.readexactly(int(headers[b"content-length"]))


class FaultyS3:
    """A store on loopback whose `fault` a test sets. `hanging` counts the callers that wait.

    Each of `next_faults` becomes the `fault` of one more request. `heads` are the requests so far,
    without their bodies.
    """

    def __init__(self, body: bytes = BODY) -> None:
        self._body = body
        self._answers = _answers(body)
        self.fault = Fault.NONE
        self.next_faults: list[Fault] = []
        self.heads: list[bytes] = []
        self.hanging = asyncio.Semaphore(0)
        self.endpoint_url = ""
        self._end = asyncio.Event()
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def refuse(self, status: str, body: bytes, *headers: bytes) -> None:
        """Answer every request with this refusal; a HEAD gets no body."""
        head = b"\r\n".join((b"HTTP/1.1 " + status.encode(), *headers))
        length = b"Content-Length: %d" % len(body)
        self._answers[Fault.REFUSES] = b"%s\r\n%s\r\n\r\n%s" % (head, length, body)
        self.fault = Fault.REFUSES

    def refuse_with_code(
        self, status: str, code: str, message: str = "no", extra: str = ""
    ) -> None:
        """Answer every request as S3 refuses it."""
        body = f"<Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"
        self.refuse(status, body.encode(), b"Content-Type: application/xml")

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint_url = f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        self._end.set()
        self._server.close()
        for writer in self._connections.values():
            writer.transport.abort()
        await asyncio.gather(*self._connections)

    @property
    def requests(self) -> int:
        return len(self.heads)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while await self._answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left, as it should
        finally:
            writer.close()
            del self._connections[task]

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.next_faults:
            self.fault = self.next_faults.pop(0)
        fault = self.fault
        if head.startswith(b"PUT"):
            await _read_body(head, reader, writer)
        writer.write(_answer(self._answers, fault, head))
        await writer.drain()
        if fault in _HANGS:
            self.hanging.release()
            await self._end.wait()
        if fault is Fault.DRIPS:
            await self._drip(writer)
        if fault in _RESETS:
            # Closing with zero linger sends RST instead of FIN.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return fault not in _RESETS | _ENDS_THE_CONNECTION

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        for byte in self._body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(_DRIP_INTERVAL_S)


@asynccontextmanager
async def running_faulty_s3(body: bytes = BODY) -> AsyncIterator[FaultyS3]:
    server = FaultyS3(body)
    await server.start()
    try:
        yield server
    finally:
        await server.close()
