"""Does doctor see certificates that do not fit, keys that all may read, tokens that are over?"""

from __future__ import annotations

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
from tests.support.certificates import Authority


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return Authority("ca").issue("host").write(tmp_path, "server")


def grpc_tls(settings: dict[str, Any], certificate: Path, key: Path) -> Finding:
    settings["grpc"] = {"tls": {"cert_file": certificate, "key_file": key}}
    found, http = credentials.check_tls(Patient(Settings(**settings)))
    assert http.message == "off"
    return found


def test_a_certificate_with_its_own_key_is_well(
    settings: dict[str, Any], pair: tuple[Path, Path]
) -> None:
    assert grpc_tls(settings, *pair).level is Level.OK


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
    assert f"{pair[1]}: others than its owner and group may use this key" in found.message


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
    assert found.message == "tokens that are over: over"
