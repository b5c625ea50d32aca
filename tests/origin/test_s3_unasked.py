"""Does an origin that could not even be asked name the one setting, variable or file at fault?"""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from cachesvc.core.errors import OriginError
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import S3Settings
from tests.origin.conftest import use_environment
from tests.support.aws_environment import with_key
from tests.support.certificates import Authority


async def refusal(key: str = "photo.png", **settings: str) -> OriginError:
    given = {"bucket": "bucket", "region": "us-east-1", "endpoint_url": "http://127.0.0.1:9"}
    origin = S3Origin(S3Settings(**{**given, **settings}, deadline_s=10.0))
    with pytest.raises(OriginError) as caught:
        await origin.read(key)
    await origin.close()
    return caught.value


@pytest.mark.parametrize(
    ("settings", "reason", "words"),
    [
        ({"bucket": "b b"}, "ORIGIN_MISCONFIGURED", "origin.bucket (CACHESVC_ORIGIN__BUCKET)"),
        ({"region": "eu west 1"}, "ORIGIN_MISCONFIGURED", "origin.region (CACHESVC_ORIGIN"),
        ({"endpoint_url": "not a url"}, "ORIGIN_MISCONFIGURED", "origin.endpoint_url (CACHESVC_"),
        ({"key": ""}, "ORIGIN_KEY_REFUSED", "the object's key is not valid"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "ORIGIN_UNREACHABLE", "nothing listens at"),
        ({"endpoint_url": "http://no-such-host.invalid"}, "ORIGIN_UNREACHABLE", "DNS"),
    ],
    ids=str,
)
async def test_the_setting_at_fault_is_named(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], reason: str, words: str
) -> None:
    use_environment(monkeypatch, with_key())
    found = await refusal(**settings)
    assert found.reason == reason
    assert words in found.message


@pytest.mark.parametrize(
    ("variables", "profile", "reason", "words"),
    [
        ({"AWS_PROFILE": "nobody"}, "", "ORIGIN_MISCONFIGURED", "no profile 'nobody'"),
        ({}, "[default\naws_x", "ORIGIN_MISCONFIGURED", "AWS_CONFIG_FILE"),
        (
            {"AWS_ACCESS_KEY_ID": "any"},
            "",
            "ORIGIN_NO_CREDENTIALS",
            "AWS_SECRET_ACCESS_KEY",
        ),
        ({}, "", "ORIGIN_NO_CREDENTIALS", "no AWS credentials were found"),
        (
            {},
            "[default]\ncredential_process = /no/such/program\n",
            "ORIGIN_CREDENTIALS_UNAVAILABLE",
            "credentials cannot be read",
        ),
        (
            {
                "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
                "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/token",
            },
            "",
            "ORIGIN_CREDENTIALS_UNAVAILABLE",
            "the file of AWS_WEB_IDENTITY_TOKEN_FILE cannot be read: No such file",
        ),
        (
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/x"},
            "",
            "ORIGIN_MISCONFIGURED",
            "a variable that begins with AWS_",
        ),
        (
            {"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "x", **with_key()},
            "",
            "ORIGIN_MISCONFIGURED",
            "a variable that begins with AWS_",
        ),
    ],
    ids=str,
)
async def test_what_is_wrong_with_the_credentials_is_named(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    variables: dict[str, str],
    profile: str,
    reason: str,
    words: str,
) -> None:
    file = tmp_path / "config"
    file.write_text(profile)
    own = {"AWS_CONFIG_FILE": str(file), "AWS_EC2_METADATA_DISABLED": "true"}
    use_environment(monkeypatch, {**own, **variables})
    found = await refusal()
    assert found.reason == reason
    assert words in found.message


async def test_tls_that_fails_and_a_proxy_that_is_gone_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_environment(monkeypatch, with_key())

    async def speak_no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_no_tls, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        found = await refusal(endpoint_url=f"https://127.0.0.1:{port}")
    assert "TLS with origin.endpoint_url" in found.message
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nonexistent/ca.pem")
    found = await refusal(endpoint_url="https://127.0.0.1:9")
    assert "the file of AWS_CA_BUNDLE cannot be read" in found.message
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        proxy = f"http://127.0.0.1:{gone.getsockname()[1]}"
    monkeypatch.setenv("HTTP_PROXY", proxy)
    found = await refusal(endpoint_url="http://s3.example.invalid")
    assert "the proxy (HTTPS_PROXY, HTTP_PROXY)" in found.message


async def test_a_certificate_that_nobody_trusts_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_environment(monkeypatch, with_key())
    certificate, key = Authority("ca").issue("localhost").write(tmp_path, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    async with await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context
    ) as server:
        port = server.sockets[0].getsockname()[1]
        found = await refusal(endpoint_url=f"https://127.0.0.1:{port}")
    assert found.reason == "ORIGIN_UNREACHABLE"
    assert "AWS_CA_BUNDLE" in found.message
