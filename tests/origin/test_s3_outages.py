"""A real S3 server that goes away, comes back, or refuses our credentials. Promise 3."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cachesvc.core.errors import NoSuchObject, OriginDenied, OriginUnavailable
from cachesvc.origin.s3 import S3Origin
from cachesvc.origin.s3_client import S3Settings
from tests.origin.conftest import open_client, s3_origin, use_environment
from tests.support.s3.servers import S3Server

pytestmark = pytest.mark.s3

_DEADLINE_S = 2.0
# Not a measurement: the deadline must end the call, and not botocore after minutes.
_ENDS_WITHIN_S = _DEADLINE_S + 5


async def test_a_server_that_is_down_is_unavailable_and_is_found_again(store: S3Server) -> None:
    origin = s3_origin(store, store.new_bucket(), deadline_s=_DEADLINE_S)
    await open_client(origin)
    await origin.write("photo.png", b"photo")

    await asyncio.to_thread(store.stop_serving)
    try:
        async with asyncio.timeout(_ENDS_WITHIN_S):
            for call in (origin.read("photo.png"), origin.write("p", b""), origin.check()):
                with pytest.raises(OriginUnavailable):
                    await call
    finally:
        await asyncio.to_thread(store.start_serving)

    await origin.check()
    await origin.write("second.png", b"second")
    assert (await origin.read("second.png")).data == b"second"
    if store.kind == "ceph":  # moto loses its objects when it ends
        assert (await origin.read("photo.png")).data == b"photo"
    await origin.close()


async def test_a_wrong_secret_is_denied(store: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    if store.kind == "moto":
        pytest.skip("moto checks no signature; needs Ceph (CACHESVC_TEST_S3=ceph)")
    bucket = store.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    origin = s3_origin(store, bucket)

    with pytest.raises(OriginDenied) as caught:
        await origin.read("photo.png")
    assert caught.value.reason == "ORIGIN_BAD_CREDENTIALS"
    with pytest.raises(OriginDenied):
        await origin.write("photo.png", b"photo")
    with pytest.raises(OriginDenied):
        await origin.check()
    await origin.close()


async def test_an_unknown_access_key_is_denied(
    store: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.kind == "moto":
        pytest.skip("moto checks no signature; needs Ceph (CACHESVC_TEST_S3=ceph)")
    bucket = store.new_bucket()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    origin = s3_origin(store, bucket)

    with pytest.raises(OriginDenied) as caught:
        await origin.read("photo.png")

    assert caught.value.reason == "ORIGIN_BAD_CREDENTIALS"
    await origin.close()


async def test_no_credentials_at_all_is_denied(
    store: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = {k: v for k, v in store.credentials().items() if "KEY" not in k}
    use_environment(monkeypatch, nobody)
    origin = s3_origin(store, "any-bucket")

    with pytest.raises(OriginDenied) as caught:
        await origin.read("photo.png")

    assert caught.value.reason == "ORIGIN_NO_CREDENTIALS"
    await origin.close()


async def test_a_missing_bucket_is_for_an_operator_and_not_a_miss(store: S3Server) -> None:
    origin = s3_origin(store, "no-such-bucket-here")

    for call in (origin.read("photo.png"), origin.write("photo.png", b""), origin.check()):
        with pytest.raises(OriginDenied) as caught:
            await call
        assert caught.value.reason == "NO_SUCH_BUCKET"
    await origin.close()


async def test_settings_that_cannot_work_are_for_an_operator() -> None:
    origin = S3Origin(S3Settings(bucket="b", region="r", endpoint_url="not a url"))

    with pytest.raises(OriginDenied) as caught:
        await origin.start()

    assert caught.value.reason == "ORIGIN_MISCONFIGURED"
    await origin.close()


async def test_credentials_that_cannot_be_fetched_are_asked_for_again(
    store: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "config"
    profile.write_text("[default]\ncredential_process = /no/such/program\n")
    bucket = store.new_bucket()
    use_environment(monkeypatch, {"AWS_CONFIG_FILE": str(profile)})
    origin = s3_origin(store, bucket)
    with pytest.raises(OriginUnavailable) as caught:
        await origin.read("absent.png")
    assert caught.value.reason == "ORIGIN_CREDENTIALS_UNAVAILABLE"

    use_environment(monkeypatch, store.credentials())

    with pytest.raises(NoSuchObject):
        await origin.read("absent.png")
    await origin.close()


async def test_a_caller_that_leaves_while_the_client_opens_fails_nobody_else(
    store: S3Server,
) -> None:
    origin = s3_origin(store, store.new_bucket())
    first, second = (asyncio.create_task(origin.read("absent.png")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    with pytest.raises(NoSuchObject):
        await second

    assert first.cancelled()
    await origin.close()


async def test_an_origin_whose_client_fails_to_open_while_it_is_closed_closes_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer = tmp_path / "answer"
    os.mkfifo(answer)
    profile = tmp_path / "config"
    profile.write_text(f"[default]\ncredential_process = cat {answer}\n")
    use_environment(monkeypatch, {"AWS_CONFIG_FILE": str(profile)})
    origin = S3Origin(S3Settings(bucket="b", region="r"))
    starting = asyncio.create_task(origin.start())
    # The pipe opens when the client asks for credentials: the client is not open yet.
    with await asyncio.to_thread(answer.open, "w") as credentials:
        closing = asyncio.create_task(origin.close())
        with pytest.raises(OriginUnavailable) as caught:
            await starting
        assert caught.value.reason == "ORIGIN_CLOSED"
        credentials.write('{"Version": 2}')

    await closing


@pytest.mark.parametrize(
    ("object_key", "content_type"),
    [("a/human_img.png", "image/png"), ("a/pose_tensor.pkl", "application/octet-stream")],
)
async def test_an_object_is_written_with_the_content_type_of_its_suffix(
    store: S3Server, object_key: str, content_type: str
) -> None:
    bucket = store.new_bucket()
    origin = s3_origin(store, bucket)
    await origin.write(object_key, b"bytes")

    head = await asyncio.to_thread(store.client().head_object, Bucket=bucket, Key=object_key)

    assert head["ContentType"] == content_type
    await origin.close()
