"""Promise 10, the client's side: which credential is shown where, and never a token in plain
text?
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    InvalidSettings,
    PermissionDenied,
    TlsFiles,
    Unauthenticated,
)
from cachesvc_client._credentials import shown
from cachesvc_client._target import admin_socket
from tests.support.secured import Credentials, secured_daemon

TOKEN = (("authorization", "Bearer abc"),)


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1:1", "[::1]:1", "ipv4:127.0.0.1:1"])
def test_a_token_may_go_to_this_host_in_the_clear(address: str) -> None:
    assert shown(address, None, None, "abc", {}) == (None, TOKEN)
    assert shown(address, None, None, None, {"CACHESVC_TOKEN": "abc"}) == (None, TOKEN)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.5:1", "gpu1.example:1", "dns:///gpu1:1", "localhost.evil.example:1", "127.0.0.1.x:1"],
)
def test_a_token_for_elsewhere_needs_tls(address: str) -> None:
    with pytest.raises(ValueError, match="in the clear"):
        shown(address, None, None, "abc", {})
    with pytest.raises(ValueError, match="in the clear"):
        CacheClient(address, token="abc")
    channel = grpc.ssl_channel_credentials()
    assert shown(address, channel, None, "abc", {}) == (channel, TOKEN)


def test_a_unix_socket_is_shown_nothing() -> None:
    variables = {"CACHESVC_TOKEN": "abc", "CACHESVC_TLS_CA": "/nowhere"}

    assert shown("unix:/run/x.sock", None, None, None, variables) == (None, None)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(InvalidSettings, match="both"):
        TlsFiles(cert_file="c.pem").credentials()


@pytest.mark.parametrize(
    ("target", "variables", "path"),
    [
        (None, {}, "/dev/shm/cachesvc/admin.sock"),
        (None, {"CACHESVC_RUNTIME_DIR": "/run/a"}, "/run/a/admin.sock"),
        (None, {"CACHESVC_GRPC__SOCKET": "/run/b/x.sock"}, "/run/b/admin.sock"),
        ("/run/c/cachesvc.sock", {"CACHESVC_RUNTIME_DIR": "/run/a"}, "/run/c/admin.sock"),
        ("unix:/run/c/cachesvc.sock", {"CACHESVC_RUNTIME_DIR": "/run/a"}, "/run/c/admin.sock"),
        ("gpu1:8443", {"CACHESVC_RUNTIME_DIR": "/run/a"}, None),
    ],
)
def test_a_purge_never_goes_to_another_daemons_admin_socket(
    target: str | None, variables: dict[str, str], path: str | None
) -> None:
    assert admin_socket(target, variables) == path


async def test_both_clients_call_over_tls_with_a_token_or_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = Credentials(tmp_path)
    credentials.know(
        {"backend.example": ["backend"]},
        [{"name": "nest", "token": "abc", "roles": ["backend"]}],
    )
    ca = str(credentials.ca_file)
    with secured_daemon(tmp_path, credentials, demand_certificates=False) as (_, address):
        with CacheClient(address, tls=TlsFiles(ca), token="abc") as client:
            assert client.invalidate(user_id="u1").removed_count == 0
            with pytest.raises(PermissionDenied) as denied:
                client.invalidate(everything=True)
            assert denied.value.reason == "ROLE_MISSING"
        async with AsyncCacheClient(address, tls=TlsFiles(ca), token="no") as other:
            with pytest.raises(Unauthenticated) as unknown:
                await other.stats()
            assert unknown.value.reason == "CREDENTIAL_UNKNOWN"
        monkeypatch.setenv("CACHESVC_TLS_CA", ca)
        monkeypatch.setenv("CACHESVC_TOKEN", "abc")
        async with AsyncCacheClient(address) as named:
            assert (await named.stats()).version
    monkeypatch.delenv("CACHESVC_TOKEN")
    (tmp_path / "second").mkdir()
    with secured_daemon(tmp_path / "second", credentials, demand_certificates=True) as (_, address):
        certificate, key = credentials.authority.issue("backend.example").write(tmp_path, "caller")
        with CacheClient(address, tls=TlsFiles(ca, str(certificate), str(key))) as client:
            assert client.invalidate(user_id="u1").removed_count == 0


@pytest.mark.parametrize("token", ["two words", "a\nline", "ü", " "])
def test_a_token_that_no_call_can_carry_is_refused_by_its_name(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise gRPC refuses each call, in its own words and with a line on stderr."""
    with pytest.raises(InvalidSettings, match="token must be printable ASCII"):
        CacheClient("127.0.0.1:9", token=token)
    monkeypatch.setenv("CACHESVC_TOKEN", token)
    with pytest.raises(InvalidSettings, match="CACHESVC_TOKEN") as caught:
        CacheClient("127.0.0.1:9")
    assert token.strip() == "" or token not in caught.value.message
