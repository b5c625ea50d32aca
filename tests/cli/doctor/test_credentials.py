"""Does doctor see certificates that do not fit, keys that all may read, and expired tokens?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from cachesvc.cli.doctor import credentials
from cachesvc.cli.doctor.findings import Finding, Level, Patient
from cachesvc.config import Settings
from tests.cli.doctor.conftest import Examine
from tests.support.certificates import Authority, Certificate

DAY = timedelta(days=1)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return lasting(80 * DAY).write(tmp_path, "server")


def lasting(left: timedelta) -> Certificate:
    """Return a certificate made for 90 days, of which `left` remains."""
    ends = datetime.now(UTC) + left
    return Authority("ca").issue("host", between=(ends - 90 * DAY, ends))


def grpc_tls(settings: dict[str, Any], certificate: Path, key: Path) -> Finding:
    settings["grpc"] = {"tls": {"cert_file": certificate, "key_file": key}}
    found, http = credentials.check_tls(Patient(Settings(**settings)))
    assert http.message == "this listener has no TLS"
    return found


def test_a_certificate_with_its_own_key_is_well(
    settings: dict[str, Any], pair: tuple[Path, Path]
) -> None:
    assert grpc_tls(settings, *pair).level is Level.OK


@pytest.mark.parametrize(
    ("left", "level", "says"),
    [
        (15 * DAY, Level.OK, "are valid"),
        (13 * DAY, Level.WARNING, "it expires soon"),
        (-timedelta(minutes=1), Level.ERROR, "it has expired"),
        (91 * DAY, Level.ERROR, "it is not valid yet"),
    ],
)
def test_a_certificate_that_is_over_or_soon_will_be_is_said_to_be(
    settings: dict[str, Any], tmp_path: Path, left: timedelta, level: Level, says: str
) -> None:
    found = grpc_tls(settings, *lasting(left).write(tmp_path, "server"))
    assert found.level is level
    assert says in found.message
    assert f"{datetime.now(UTC) + left:%Y-%m-%d}" in found.message


def test_the_callers_authority_counts_too(
    settings: dict[str, Any], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    authority = tmp_path / "clients.pem"
    authority.write_bytes(lasting(-DAY).pem)
    settings["grpc"] = {
        "tls": {"cert_file": pair[0], "key_file": pair[1], "client_ca_file": authority}
    }
    found, _ = credentials.check_tls(Patient(Settings(**settings)))
    assert found.level is Level.ERROR
    assert found.message.startswith(f"{authority} is valid from ")
    authority.write_bytes(authority.read_bytes() + lasting(80 * DAY).pem)
    found, _ = credentials.check_tls(Patient(Settings(**settings)))
    assert found.level is Level.OK


def test_another_certificates_key_or_none_is_an_error(
    settings: dict[str, Any], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    _, other = Authority("ca").issue("host").write(tmp_path, "other")
    assert grpc_tls(settings, pair[0], other).level is Level.ERROR
    assert grpc_tls(settings, pair[0], tmp_path / "none.key").level is Level.ERROR


def test_a_key_that_every_user_may_read_is_an_error_as_the_daemon_does_not_start_with_it(
    settings: dict[str, Any], pair: tuple[Path, Path]
) -> None:
    pair[1].chmod(0o644)
    found = grpc_tls(settings, *pair)
    assert found.level is Level.ERROR
    assert f"{pair[1]}: users other than its owner and group may use this key" in found.message


def test_an_encrypted_key_is_an_error_and_nobody_is_asked_for_its_password(
    settings: dict[str, Any], pair: tuple[Path, Path]
) -> None:
    certificate, path = pair
    key = load_pem_private_key(path.read_bytes(), password=None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password"))
    )
    found = grpc_tls(settings, certificate, path)
    assert found.level is Level.ERROR
    assert "the key is encrypted" in found.message


def test_a_token_that_is_over_is_named_and_a_broken_file_an_error(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    grants = tmp_path / "grants.toml"
    settings["access"] = {"file": grants}
    assert examine(credentials.check_grants).level is Level.ERROR
    token = '[[tokens]]\nname = "{}"\nsha256 = "{}"\nroles = ["backend"]\nexpires = {}\n'
    grants.write_text(token.format("later", "0" * 64, "2999-01-01T00:00:00Z"))
    assert "0 certificates and 1 tokens" in examine(credentials.check_grants).message
    with grants.open("a") as file:
        file.write(token.format("over", "1" * 64, "2020-01-01T00:00:00Z"))
    found = examine(credentials.check_grants)
    assert found.level is Level.WARNING
    assert found.message == "these tokens have expired: over"
