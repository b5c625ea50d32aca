"""What is a caller told whose target, socket or credentials are wrong, and is it told at once?"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket as sockets
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    CacheServiceError,
    CacheUnavailable,
    CacheUnreachable,
    InvalidSettings,
    PermissionDenied,
    TlsFiles,
)
from cachesvc_client._probe import Wire, cause_of
from tests.client.support.scripted_server import ScriptedServer
from tests.client.support.users import NEIGHBOUR, as_user, message_of, needs_root
from tests.support.certificates import HERE, Authority, Certificate
from tests.support.secured import Credentials, secured_daemon
from tests.support.server_processes import ReservedPort

# Errors that waiting would not change come at once: a call that waited would outlast the test.
NEVER_S = 600
GROUP = 61_900


# ---- the socket


@needs_root
def test_a_worker_without_the_sockets_group_is_told_which_it_is(socket: Path) -> None:
    socket.parent.chmod(0o755)
    with ScriptedServer(socket):
        os.chown(socket, 0, GROUP)
        socket.chmod(0o660)
        said = as_user(NEIGHBOUR, message_of, socket)
        assert said.startswith(f"SOCKET_FORBIDDEN {socket}: permission denied; the socket belongs")
        assert f"group {GROUP}, mode 0660, and this process is {NEIGHBOUR}" in said
        assert f"usermod -aG {GROUP}" in said
        assert as_user(NEIGHBOUR, message_of, socket, groups=(GROUP,)) == "served"


@needs_root
def test_a_worker_that_may_not_enter_the_runtime_directory_is_told_which_it_is(
    socket: Path,
) -> None:
    with ScriptedServer(socket):
        os.chown(socket.parent, 0, GROUP)
        socket.parent.chmod(0o750)
        said = as_user(NEIGHBOUR, message_of, socket)
        assert said.startswith("SOCKET_FORBIDDEN ")
        assert f"the directory {socket.parent} belongs" in said
        assert f"group {GROUP}, mode 0750" in said


@needs_root
def test_a_mode_that_lets_no_group_in_is_not_answered_with_a_group(socket: Path) -> None:
    socket.parent.chmod(0o755)
    with ScriptedServer(socket):
        socket.chmod(0o600)
        said = as_user(NEIGHBOUR, message_of, socket)
        assert "its group may not use it: run this process as its owner" in said


@needs_root
def test_a_socket_that_its_daemon_has_just_made_is_waited_for(
    socket: Path,
) -> None:
    # A daemon makes the socket first and gives it to the group then; a restart must not fail
    # workers.
    socket.parent.chmod(0o755)
    with ScriptedServer(socket):
        socket.chmod(0o600)
        said = as_user(NEIGHBOUR, message_of, socket, 0.2, 3600.0)
        assert said.startswith(
            f" no daemon answered at unix:{socket} within 0.2 s: {socket}: permission denied"
        )


def test_a_file_at_the_sockets_path_is_no_daemon(socket: Path) -> None:
    socket.write_text("")
    with (
        CacheClient(str(socket), wait_s=NEVER_S) as client,
        pytest.raises(CacheUnreachable, match="is not a socket") as said,
    ):
        client.stats()
    assert said.value.reason == "NOT_A_SOCKET"


def test_what_a_restart_looks_like_is_waited_for_and_then_said(socket: Path) -> None:
    with CacheClient(str(socket), wait_s=0.1) as client:
        with pytest.raises(CacheUnavailable, match=r"within 0\.1 s: .*No such file") as said:
            client.stats()
        assert not isinstance(said.value, CacheUnreachable)
        with sockets.socket(sockets.AF_UNIX) as dead:
            dead.bind(str(socket))
        with pytest.raises(CacheUnavailable, match=r"within 0\.1 s: .*Connection refused"):
            client.stats()


# ---- TCP


@dataclass
class Secured:
    """A daemon with TLS on two ports: `demanding` demands client certificates, `open` does not."""

    credentials: Credentials
    demanding: str
    open: str

    @property
    def ca(self) -> str:
        return str(self.credentials.ca_file)

    def certificate(self, authority: Authority, *, expired: bool = False) -> TlsFiles:
        shown = authority.issue("backend.example", expired=expired)
        name = f"client-{id(shown)}"
        paths = shown.write(self.credentials.folder, name)
        return TlsFiles(self.ca, *map(str, paths))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    credentials = Credentials(folder)
    credentials.know({"backend.example": ["admin"]})
    for name in ("demanding", "open"):
        (folder / name).mkdir()
    with (
        secured_daemon(folder / "demanding", credentials, demand_certificates=True) as first,
        secured_daemon(folder / "open", credentials, demand_certificates=False) as second,
    ):
        yield Secured(credentials, first[1], second[1])


def refusal(
    target: str, tls: TlsFiles | None = None, token: str | None = None
) -> CacheServiceError:
    """Return the error of a target, which must be the same from both clients."""
    options: dict[str, Any] = {"tls": tls, "token": token, "wait_s": NEVER_S, "timeout_s": 30}
    with CacheClient(target, **options) as client, pytest.raises(CacheServiceError) as said:
        client.stats()

    async def ask() -> None:
        async with AsyncCacheClient(target, **options) as client:
            await client.stats()

    with pytest.raises(type(said.value)) as said_too:
        asyncio.run(ask())
    assert (said_too.value.reason, said_too.value.message) == (
        said.value.reason,
        said.value.message,
    )
    return said.value


def test_a_certificate_of_another_ca_is_said_to_be_that(secured: Secured, tmp_path: Path) -> None:
    other = Authority("another").write(tmp_path)
    said = refusal(secured.open, TlsFiles(str(other)))
    assert said.reason == "TLS_CA_UNKNOWN"
    assert "CACHESVC_TLS_CA" in said.message


def test_a_client_certificate_that_is_missing_is_said_to_be(secured: Secured) -> None:
    said = refusal(secured.demanding, TlsFiles(secured.ca))
    assert said.reason == "TLS_CERTIFICATE_REQUIRED"
    assert "CACHESVC_TLS_CERT" in said.message


@pytest.mark.parametrize("fault", ["expired", "another CA's"])
def test_a_client_certificate_that_is_refused_is_said_to_be(secured: Secured, fault: str) -> None:
    authority = secured.credentials.authority if fault == "expired" else Authority("another")
    said = refusal(secured.demanding, secured.certificate(authority, expired=fault == "expired"))
    assert said.reason == "TLS_CERTIFICATE_REFUSED"
    assert "client_ca_file" in said.message


def test_plain_tcp_to_a_daemon_with_tls_is_said_to_be_that(secured: Secured) -> None:
    said = refusal(secured.open)
    assert said.reason == "TLS_REQUIRED"
    assert refusal(secured.demanding).reason == "TLS_REQUIRED"


def test_a_wrong_token_is_the_daemons_own_word(secured: Secured) -> None:
    said = refusal(secured.open, TlsFiles(secured.ca), token="cachesvc_wrong")
    assert isinstance(said, PermissionDenied)
    assert said.reason == "CREDENTIAL_UNKNOWN"


def test_a_good_certificate_is_served(secured: Secured) -> None:
    tls = secured.certificate(secured.credentials.authority)
    with CacheClient(secured.demanding, tls=tls, wait_s=0) as client:
        assert client.stats().puts == 0


# ---- servers that are not daemons


@contextmanager
def tls_server(folder: Path, certificate: Certificate) -> Iterator[str]:
    """Run a gRPC server with a certificate; yield its address."""
    server = grpc.server(ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(certificate.key, certificate.pem)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"sans": HERE, "expired": True}, "TLS_EXPIRED"),
        ({"sans": HERE, "early": True}, "TLS_NOT_YET_VALID"),
        ({"sans": (x509.DNSName("gpu1.example"),)}, "TLS_NAME_MISMATCH"),
        ({"sans": (x509.IPAddress(ipaddress.ip_address("10.0.0.5")),)}, "TLS_NAME_MISMATCH"),
    ],
)
def test_what_is_wrong_with_the_servers_certificate_is_said(
    tmp_path: Path, how: dict[str, Any], reason: str
) -> None:
    authority = Authority("ours")
    ca = str(authority.write(tmp_path))
    with tls_server(tmp_path, authority.issue(**how)) as target:
        said = refusal(target, TlsFiles(ca))
        assert (said.reason, target in said.message) == (reason, True)


def test_tls_to_a_daemon_without_it_is_said_to_be_that(tmp_path: Path) -> None:
    ca = str(Authority("ours").write(tmp_path))
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        said = refusal(f"127.0.0.1:{port}", TlsFiles(ca))
        assert said.reason == "TLS_NOT_SPOKEN"
        assert "grpc.tls" in said.message
        # Also with credentials that only gRPC can read.
        with (
            CacheClient(
                f"127.0.0.1:{port}", credentials=grpc.ssl_channel_credentials(), wait_s=NEVER_S
            ) as client,
            pytest.raises(CacheUnreachable, match="does not speak TLS"),
        ):
            client.stats()
    finally:
        server.stop(None).wait()


def test_a_proxy_that_demands_a_certificate_in_words_is_understood(tmp_path: Path) -> None:
    """gRPC's server hangs up; other servers send TLS's own alert."""
    authority = Authority("ours")
    ca = str(authority.write(tmp_path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(sans=HERE).write(tmp_path, "server"))
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    with sockets.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(connection, True) as one:
                    one.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        assert cause_of(Wire(target, True, TlsFiles(ca))).reason == "TLS_CERTIFICATE_REQUIRED"
        listener.shutdown(sockets.SHUT_RDWR)


def test_a_name_that_nobody_has_is_said_to_be_that() -> None:
    said = refusal("gpu1.invalid:8443")
    assert said.reason == "NAME_UNKNOWN"
    assert said.message.startswith("gpu1.invalid: ")


def test_a_port_where_nobody_listens_is_waited_for_and_then_said() -> None:
    port = ReservedPort()
    with (
        CacheClient(f"127.0.0.1:{port.number}", wait_s=0.1) as client,
        pytest.raises(CacheUnavailable, match=r"within 0\.1 s: .*Connection refused") as said,
    ):
        client.stats()
    port.release()
    assert not isinstance(said.value, CacheUnreachable)


def test_a_server_that_takes_connections_and_closes_them_is_waited_for() -> None:
    """A proxy does so while the daemon behind it restarts."""
    with sockets.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        for wire in (Wire(target, False, None), Wire(target, True, TlsFiles())):
            cause = cause_of(wire)
            assert cause is not None
            assert cause.reason == ""
        listener.shutdown(sockets.SHUT_RDWR)


@pytest.mark.parametrize("address", ["xds:///x", "dns://8.8.8.8/host:1x", "vsock:3:4x", "host"])
def test_an_address_that_only_grpc_understands_is_left_to_grpc(address: str) -> None:
    assert cause_of(Wire(address, False, None)) is None


# ---- the files


def test_a_tls_file_that_cannot_be_used_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority("ours")
    ca = authority.write(tmp_path)
    certificate, key = authority.issue("a").write(tmp_path, "a")
    _, other_key = authority.issue("b").write(tmp_path, "b")
    text = tmp_path / "text.pem"
    text.write_text("no PEM")
    locked = tmp_path / "locked.key"
    locked.write_bytes(encrypted(key))
    gone = tmp_path / "gone.pem"
    for files, said in {
        (gone, "", ""): f"CACHESVC_TLS_CA.*{gone}: No such file",
        (tmp_path, "", ""): f"CACHESVC_TLS_CA.*{tmp_path}: Is a directory",
        (text, "", ""): f"CACHESVC_TLS_CA.*{text}: no PEM certificate",
        (ca, certificate, ""): "needs both.*CACHESVC_TLS_KEY",
        (ca, "", key): "needs both.*CACHESVC_TLS_CERT",
        (ca, gone, key): f"CACHESVC_TLS_CERT.*{gone}: No such file",
        (ca, certificate, gone): f"CACHESVC_TLS_KEY.*{gone}: No such file",
        (ca, text, key): "no PEM certificate with its key",
        (ca, certificate, text): "no PEM certificate with its key",
        (ca, certificate, other_key): f"{other_key} .CACHESVC_TLS_KEY. is not that of",
        (ca, certificate, locked): f"CACHESVC_TLS_KEY.*{locked}: .*password",
    }.items():
        for name, file in zip(("CA", "CERT", "KEY"), files, strict=True):
            monkeypatch.setenv(f"CACHESVC_TLS_{name}", str(file))
        for kind in (CacheClient, AsyncCacheClient):
            with pytest.raises(InvalidSettings, match=said):
                kind("gpu1.example:1")
        # A unix socket has no TLS, so no file is checked.
        CacheClient("/nowhere/cachesvc.sock").close()


def encrypted(key: Path) -> bytes:
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
