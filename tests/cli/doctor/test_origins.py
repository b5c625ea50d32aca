"""Does doctor tell what S3 permits from what it refuses, and print no secret?

The tests ask a real S3 if there is one, and a scripted one for refusals that Ceph does not have.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cachesvc.cli.doctor import origins
from cachesvc.cli.doctor.findings import Finding, Level, Patient
from cachesvc.config import Settings
from tests.cli.doctor.conftest import Examine
from tests.support.aws_environment import with_key
from tests.support.s3.faults import Fault, FaultyS3, running_faulty_s3
from tests.support.s3.servers import S3Server

KEY = "users/u1/vton-cache/upper/mask.png"


@pytest.fixture
def credentials(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.credentials().items():
        monkeypatch.setenv(name, value)
    return s3_server.credentials()


@pytest.fixture
def bucket(s3_server: S3Server, settings: dict[str, Any], credentials: dict[str, str]) -> str:
    name = s3_server.new_bucket()
    settings["origin"] = {
        "kind": "s3",
        "bucket": name,
        "region": s3_server.region,
        "endpoint_url": s3_server.endpoint_url,
    }
    return name


def test_a_folder_that_can_be_read_is_well_and_a_missing_one_an_error(
    examine: Examine, settings: dict[str, Any]
) -> None:
    assert examine(origins.check_access).level is Level.OK
    settings["origin"]["path"] = Path("/nonexistent/unmounted")
    assert examine(origins.check_access).level is Level.ERROR


@pytest.mark.s3
@pytest.mark.usefixtures("bucket")
def test_a_bucket_that_answers_for_absent_objects_is_well(examine: Examine) -> None:
    assert examine(origins.check_access).level is Level.OK


@pytest.mark.s3
@pytest.mark.usefixtures("bucket")
def test_a_clock_that_is_s3s_is_well(examine: Examine) -> None:
    assert examine(origins.check_clock).level is Level.OK


@pytest.mark.s3
def test_a_bucket_that_is_not_there_names_the_setting(
    examine: Examine, settings: dict[str, Any], bucket: str
) -> None:
    settings["origin"]["bucket"] = f"{bucket}-typo"
    found = examine(origins.check_access)
    assert found.level is Level.ERROR
    assert "CACHESVC_ORIGIN__BUCKET" in found.fix


@pytest.mark.s3
def test_an_object_that_is_named_is_really_read(
    settings: dict[str, Any], s3_server: S3Server, bucket: str
) -> None:
    client = s3_server.client()
    client.put_object(Bucket=bucket, Key=KEY, Body=b"mask")
    assert [f.level for f in access(settings)] == [Level.OK, Level.OK]
    client.delete_object(Bucket=bucket, Key=KEY)
    assert [f.level for f in access(settings)] == [Level.OK, Level.ERROR]


@pytest.mark.s3
def test_credentials_that_may_not_read_objects_are_told_the_permission(
    settings: dict[str, Any], s3_server: S3Server, bucket: str
) -> None:
    if s3_server.kind != "ceph":
        pytest.skip("moto checks no policy")
    client = s3_server.client()
    client.put_object(Bucket=bucket, Key=KEY, Body=b"mask")
    resource = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    _, found = access(settings)
    assert found.level is Level.ERROR
    assert "s3:GetObject" in found.fix


def access(settings: dict[str, Any]) -> list[Finding]:
    return list(origins.check_access(Patient(Settings(**settings), object_key=KEY)))


@pytest.mark.s3
@pytest.mark.usefixtures("bucket")
def test_credentials_are_named_by_their_source_and_never_shown(
    examine: Examine, credentials: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = examine(origins.check_credentials)
    assert "from env" in found.message
    profile = tmp_path / "credentials"
    key, secret = credentials["AWS_ACCESS_KEY_ID"], credentials["AWS_SECRET_ACCESS_KEY"]
    profile.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    found = examine(origins.check_credentials)
    assert "shared-credentials-file" in found.message
    assert key not in found.message
    assert secret not in found.message


@pytest.mark.s3
@pytest.mark.usefixtures("bucket")
def test_no_credentials_at_all_are_an_error(
    examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert examine(origins.check_credentials).level is Level.ERROR
    assert "ORIGIN_NO_CREDENTIALS" in examine(origins.check_access).message


@pytest.mark.parametrize(
    ("ahead_s", "level"),
    [
        (0.9, Level.OK),
        (-1.9, Level.OK),
        (3.5, Level.WARNING),
        (-2.5, Level.WARNING),
        (902.0, Level.ERROR),
        (-901.0, Level.ERROR),
    ],
)
def test_what_a_clock_that_is_apart_means(
    settings: dict[str, Any], ahead_s: float, level: Level
) -> None:
    assert origins.skew_finding(ahead_s, Patient(Settings(**settings))).level is level


@asynccontextmanager
async def s3_with(
    fault: Fault, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Settings]:
    """Return the settings of an S3 that has the fault."""
    for name, value in with_key().items():
        monkeypatch.setenv(name, value)
    async with running_faulty_s3() as server:
        server.fault = fault
        origin = {
            "kind": "s3",
            "bucket": "bucket",
            "region": "us-east-1",
            "endpoint_url": server.endpoint_url,
        }
        yield Settings(**{**settings, "origin": origin})


async def access_findings(patient: Patient) -> list[Finding]:
    return await asyncio.to_thread(lambda: list(origins.check_access(patient)))


async def test_without_listbucket_an_absent_object_is_a_failure_and_doctor_says_so(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS then answers 403 for the bucket, and for a key that does not exist."""
    async with s3_with(Fault.SAYS_403, settings, monkeypatch) as faulty:
        (found,) = await access_findings(Patient(faulty))
    assert found.level is Level.ERROR
    assert "NOT_FOUND" in found.message
    assert "s3:ListBucket" in found.fix


async def test_a_store_that_hangs_ends_the_check_within_its_time(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with s3_with(Fault.HANGS_BEFORE_HEADERS, settings, monkeypatch) as faulty:
        (found,) = await access_findings(Patient(faulty, deadline_s=0.5))
    assert "ORIGIN_TIMEOUT" in found.message


REFUSALS = [
    ("400 Bad Request", "ExpiredToken", "", "the session token has expired", "AWS_SESSION_TOKEN"),
    ("403 Forbidden", "InvalidAccessKeyId", "", "(AWS_ACCESS_KEY_ID) is unknown", "AWS_ACCESS_KEY"),
    ("403 Forbidden", "SignatureDoesNotMatch", "", "(AWS_SECRET_ACCESS_KEY) is not", "AWS_SECRET"),
    ("400 Bad Request", "InvalidToken", "", "(AWS_SESSION_TOKEN) is not valid", "correct"),
    ("404 Not Found", "NoSuchBucket", "", 'origin.bucket (CACHESVC_ORIGIN__BUCKET) is "bucket"',
     "origin.bucket"),
    ("301 Moved Permanently", "PermanentRedirect", "<Region>eu-west-1</Region>",
     'but in eu-west-1 (ORIGIN_WRONG_REGION); origin.region (CACHESVC_ORIGIN__REGION) is "us-',
     "set origin.region"),
    ("400 Bad Request", "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>", "eu-west-1",
     "set origin.region"),
    ("403 Forbidden", "RequestTimeTooSkewed", "", "this host's clock is off", "chronyc"),
    ("403 Forbidden", "AllAccessDisabled", "", "all access to the bucket is disabled", "Deny"),
    ("403 Forbidden", "AccountProblem", "", "a problem with the account", "Deny"),
    ("400 Bad Request", "InvalidBucketName", "", "CACHESVC_ORIGIN__BUCKET", "correct what"),
    ("503 Slow Down", "SlowDown", "", "SlowDown", "try again"),
    ("500 Internal Server Error", "InternalError", "", "InternalError", "store's own log"),
    ("501 Not Implemented", "NotImplemented", "", "HTTP 501 NotImplemented", "store's own log"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "code", "extra", "words", "fix"), REFUSALS, ids=[case[1] for case in REFUSALS]
)
async def test_doctor_says_what_s3_says_and_which_setting_has_to_do_with_it(
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    code: str,
    extra: str,
    words: str,
    fix: str,
) -> None:
    async with refusing_s3(settings, monkeypatch) as (server, faulty):
        server.refuse_with_code(status, code, extra=extra)
        (found,) = await access_findings(Patient(faulty))
    assert found.level is Level.ERROR
    assert words in found.message
    assert fix in found.fix


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway", "200 OK", "407 Proxy"])
async def test_a_page_of_a_proxy_is_not_taken_for_s3s_word(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    async with refusing_s3(settings, monkeypatch) as (server, faulty):
        server.refuse(status, b"<html><b>Login</html>", b"Content-Type: text/html")
        (found,) = await access_findings(Patient(faulty))
    assert found.level is Level.ERROR
    assert "ORIGIN_BAD_ANSWER" in found.message
    assert "proxy" in found.fix


async def test_an_object_in_an_archive_class_is_no_fault_of_permissions(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with refusing_s3(settings, monkeypatch) as (server, faulty):
        server.refuse_with_code("403 Forbidden", "InvalidObjectState", "The operation is not valid")
        (found,) = await access_findings(Patient(faulty))
    assert "archive class (Glacier)" in found.message
    assert "restore-object" in found.fix
    assert "ListBucket" not in found.message + found.fix


async def test_a_key_of_kms_that_may_not_be_used_is_named(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "User: arn:aws:iam::1:role/x is not authorized to perform: kms:Decrypt on resource: k"
    async with refusing_s3(settings, monkeypatch) as (server, faulty):
        server.refuse_with_code("403 Forbidden", "AccessDenied", message)
        (found,) = await access_findings(Patient(faulty))
    assert "kms:Decrypt is not allowed (ORIGIN_KMS_REFUSED)" in found.message
    assert "kms:Decrypt" in found.fix
    assert "arn:aws:iam" not in found.message


async def test_a_server_that_has_every_object_is_not_s3(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with s3_with(Fault.NONE, settings, monkeypatch) as faulty:
        (found,) = await access_findings(Patient(faulty))
    assert found.level is Level.ERROR
    assert "not S3" in found.message


@pytest.mark.s3
@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "(AWS_SECRET_ACCESS_KEY) is not that of the access key"),
        ("AWS_ACCESS_KEY_ID", "(AWS_ACCESS_KEY_ID) is unknown"),
    ],
)
def test_a_real_store_says_which_half_of_the_credentials_is_wrong(
    examine: Examine,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    words: str,
) -> None:
    if s3_server.kind != "ceph":
        pytest.skip("moto checks no signature")
    monkeypatch.setenv(variable, "WRONGWRONGWRONGWRONG")
    found = examine(origins.check_access)
    assert found.level is Level.ERROR
    assert words in found.message
    assert "WRONG" not in found.message + found.fix
    assert variable in found.fix


@asynccontextmanager
async def refusing_s3(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[FaultyS3, Settings]]:
    """Return a server whose refusal a test sets, and the settings that lead to it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in with_key().items():
        monkeypatch.setenv(name, value)
    async with running_faulty_s3() as server:
        origin = {
            "kind": "s3",
            "bucket": "bucket",
            "region": "us-east-1",
            "endpoint_url": server.endpoint_url,
        }
        yield server, Settings(**{**settings, "origin": origin})
