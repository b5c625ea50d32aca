"""Promises 5 and 10: do callers who hold connections, send halves, floods and bombs harm others?

The quick tier proves that every healthy call is answered and that the floods are refused as the
documents say. How fast the healthy calls are is a figure, which the long tier prints:
`test_healthy_calls_stay_fast_among_hostile_ones`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.support.daemons import Daemon, stub_on, wait_until
from tests.support.grpc_calls import SERVICE, refused
from tests.support.secured import Credentials, bearer, secured_daemon

Code = grpc.StatusCode
TIMEOUT_S = 20
WORKER = bearer("token-of-worker")
IDLE = 60
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the first bytes of a TLS hello
NO_MESSAGE = b"\x0a\xff"  # a field whose length is cut off
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04\x00" + bytes(4)
_HEADERS, _RST_STREAM, _END_HEADERS = 1, 3, 4


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, str, Credentials]]:
    folder = tmp_path_factory.mktemp("hostile")
    credentials = Credentials(folder)
    credentials.know(tokens=[{"name": "w", "token": "token-of-worker", "roles": ["worker"]}])
    with secured_daemon(folder, credentials, demand_certificates=False) as (daemon, address):
        yield daemon, address, credentials


class Healthy:
    """A caller on the socket and one over TLS, which both call until the block ends."""

    def __init__(self, daemon: Daemon, address: str, credentials: Credentials) -> None:
        self._over = threading.Event()
        self.took_s: list[float] = []
        self.failed: list[grpc.StatusCode] = []
        channels = (daemon.channel(), credentials.channel(address))
        self._threads = [
            threading.Thread(target=self._run, args=(channel,), daemon=True) for channel in channels
        ]

    def __enter__(self) -> Healthy:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def wait_for_calls(self, more: int) -> None:
        reached = len(self.took_s) + more
        wait_until(lambda: len(self.took_s) >= reached, TIMEOUT_S)

    def _run(self, channel: grpc.Channel) -> None:
        stub = stub_on(channel)
        while not self._over.is_set():
            started = time.monotonic()
            try:
                stub.Stats(pb.StatsRequest(), timeout=TIMEOUT_S, metadata=WORKER)
            except grpc.RpcError as exc:
                self.failed.append(exc.code())
            self.took_s.append(time.monotonic() - started)


@contextlib.contextmanager
def connections(count: int, connect: Callable[[], socket.socket]) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(connect())) for _ in range(count)]


def idle_connections(daemon: Daemon, address: str, count: int) -> contextlib.ExitStack:
    """Open connections that send nothing, half a TLS hello, or half of their headers."""
    host, _, port = address.rpartition(":")

    def said(to: tuple[str, int], first: bytes) -> socket.socket:
        opened = socket.create_connection(to, timeout=TIMEOUT_S)
        opened.sendall(first)
        return opened

    def on_the_socket() -> socket.socket:
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(str(daemon.socket))
        return opened

    tls, http = (host, int(port)), ("127.0.0.1", daemon.http_port)
    stack = contextlib.ExitStack()
    stack.enter_context(connections(count, lambda: said(tls, HELLO)))
    stack.enter_context(connections(count, lambda: said(tls, b"")))
    stack.enter_context(connections(count, lambda: said(http, b"GET /livez HTTP/1.1\r\nHost: x")))
    stack.enter_context(connections(count, on_the_socket))
    return stack


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def rapid_resets(context: ssl.SSLContext, address: str, count: int) -> None:
    """Open streams and reset each at once, until all are done or the server hangs up."""
    host, _, port = address.rpartition(":")
    path = f"/{SERVICE}/Stats".encode()
    # HPACK without an index: POST and http of the static table, then the path as a literal.
    block = b"\x83\x87" + b"\x04" + bytes([len(path)]) + path
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as opened,
        contextlib.suppress(OSError),
    ):
        opened.sendall(PREFACE)
        for stream in range(1, 2 * count, 2):
            opened.sendall(
                frame(_HEADERS, _END_HEADERS, stream, block)
                + frame(_RST_STREAM, 0, stream, struct.pack(">I", 8))
            )


def bomb(request: type[pb.WarmRequest] | type[pb.ReportHitsRequest], field: str) -> bytes:
    """Return nearly 2 MiB of empty submessages: a million elements to allocate."""
    number = request.DESCRIPTOR.fields_by_name[field].number
    return bytes([number << 3 | 2, 0]) * ((2 << 20) // 2 - 64)


def raw(channel: grpc.Channel, method: str) -> grpc.UnaryStreamMultiCallable[bytes, bytes]:
    return channel.unary_stream(f"/{SERVICE}/{method}")


def tls_context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credentials.authority.pem.decode())
    context.set_alpn_protocols(["h2"])
    return context


def test_healthy_calls_are_answered_among_idle_and_half_open_connections(
    secured: tuple[Daemon, str, Credentials],
) -> None:
    daemon, address, credentials = secured
    with (
        idle_connections(daemon, address, IDLE),
        Healthy(daemon, address, credentials) as healthy,
    ):
        healthy.wait_for_calls(100)
        assert daemon.http("/livez")[0] == 200
    assert healthy.failed == []


def test_healthy_calls_are_answered_while_others_break_off_their_tls_hellos(
    secured: tuple[Daemon, str, Credentials],
) -> None:
    """Such a hello once made gRPC free the certificates that a callback gives it per connection."""
    daemon, address, credentials = secured
    host, _, port = address.rpartition(":")

    def half_a_hello() -> socket.socket:
        opened = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        opened.sendall(HELLO)
        return opened

    with Healthy(daemon, address, credentials) as healthy:
        for _ in range(20):
            with connections(IDLE, half_a_hello):
                healthy.wait_for_calls(2)
    assert healthy.failed == []


def test_healthy_calls_are_answered_during_rapid_resets(
    secured: tuple[Daemon, str, Credentials],
) -> None:
    daemon, address, credentials = secured
    with Healthy(daemon, address, credentials) as healthy:
        for _ in range(3):
            rapid_resets(tls_context(credentials), address, 2_000)
        healthy.wait_for_calls(50)
    assert healthy.failed == []


@pytest.mark.parametrize(
    ("method", "request_type", "field"),
    [("Warm", pb.WarmRequest, "garments"), ("ReportHits", pb.ReportHitsRequest, "hits")],
)
def test_a_stranger_cannot_make_the_daemon_parse(
    secured: tuple[Daemon, str, Credentials],
    method: str,
    request_type: type[pb.WarmRequest] | type[pb.ReportHitsRequest],
    field: str,
) -> None:
    daemon, address, credentials = secured
    sent = bomb(request_type, field)
    with credentials.channel(address) as channel, Healthy(daemon, address, credentials) as healthy:
        for _ in range(5):
            with refused() as refusal:
                list(raw(channel, method)(sent, timeout=TIMEOUT_S))
            assert refusal.status == (Code.UNAUTHENTICATED, "CREDENTIAL_REQUIRED")
        healthy.wait_for_calls(10)
    assert healthy.failed == []


def test_what_is_too_long_for_its_method_is_refused_unparsed(
    secured: tuple[Daemon, str, Credentials],
) -> None:
    _, address, credentials = secured
    with credentials.channel(address) as channel:
        for method, sent, reason in (
            ("Warm", bomb(pb.WarmRequest, "garments"), "REQUEST_TOO_LARGE"),
            ("Stats", bytes(17 << 10), "REQUEST_TOO_LARGE"),
            ("Stats", bytes(3 << 20), ""),  # beyond gRPC's own limit
        ):
            with refused() as refusal:
                list(raw(channel, method)(sent, timeout=TIMEOUT_S, metadata=WORKER))
            assert refusal.status == (Code.RESOURCE_EXHAUSTED, reason), method


PUT_HEADER = pb.PutRequest(
    header=pb.PutHeader(key=pb.EntryKey(namespace="text", id="shirt"), owner_id="user1")
)


@pytest.mark.parametrize(
    ("method", "messages"),
    [
        (f"{SERVICE}/Inspect", [NO_MESSAGE]),
        (f"{SERVICE}/Get", [NO_MESSAGE]),
        (f"{SERVICE}/Put", [NO_MESSAGE]),
        (f"{SERVICE}/Put", [PUT_HEADER.SerializeToString(), NO_MESSAGE]),
        ("grpc.health.v1.Health/Check", [NO_MESSAGE]),
        ("grpc.health.v1.Health/Watch", [NO_MESSAGE]),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", [NO_MESSAGE]),
    ],
)
def test_bytes_that_are_no_message_are_the_callers_mistake(
    secured: tuple[Daemon, str, Credentials], method: str, messages: list[bytes]
) -> None:
    """It is no defect of the daemon: no status that raises an alert, and no traceback."""
    daemon, address, credentials = secured
    with credentials.channel(address) as channel, refused() as refusal:
        call = channel.stream_stream(f"/{method}")
        list(call(iter(messages), timeout=TIMEOUT_S, metadata=WORKER))
    assert refusal.status == (Code.INVALID_ARGUMENT, "INVALID_MESSAGE")
    assert "Traceback" not in daemon.log_text()


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_stranger_who_probes_without_a_message_is_refused_unparsed(
    secured: tuple[Daemon, str, Credentials], method: str
) -> None:
    _, address, credentials = secured
    with credentials.channel(address) as channel, refused() as refusal:
        call = channel.stream_stream(f"/grpc.health.v1.Health/{method}")
        list(call(iter([NO_MESSAGE]), timeout=TIMEOUT_S))
    assert refusal.status == (Code.UNAUTHENTICATED, "CREDENTIAL_REQUIRED")


@pytest.mark.slow
def test_healthy_calls_stay_fast_among_hostile_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """1,000 idle connections, resets and bombs meanwhile: every healthy call is answered."""
    credentials = Credentials(tmp_path)
    credentials.know(tokens=[{"name": "w", "token": "token-of-worker", "roles": ["worker"]}])
    with (
        secured_daemon(tmp_path, credentials, demand_certificates=False) as (daemon, address),
        idle_connections(daemon, address, 250),
        credentials.channel(address) as channel,
        Healthy(daemon, address, credentials) as healthy,
    ):
        for _ in range(10):
            rapid_resets(tls_context(credentials), address, 1_000)
            with refused():
                list(raw(channel, "ReportHits")(bomb(pb.ReportHitsRequest, "hits"), timeout=20))
            healthy.wait_for_calls(300)
    took_ms = sorted(1e3 * took for took in healthy.took_s)
    p50, p99 = (took_ms[int(len(took_ms) * share)] for share in (0.5, 0.99))
    with capsys.disabled():
        sys.stdout.write(f"\n{len(took_ms)} healthy calls: p50 {p50:.1f}, p99 {p99:.1f} ms\n")
    assert healthy.failed == []
