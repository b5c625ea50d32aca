"""Does each wrong TLS file end in one line that names the setting and the fault?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from cachesvc.config import Settings
from cachesvc.config.access import TlsSettings
from cachesvc.core.errors import ConfigError
from cachesvc.edge import tls_files
from tests.support.certificates import Authority

CA = Authority("ca")
NAMES = ("cert_file", "key_file", "client_ca_file")


class Files:
    """The files of one listener; at first they fit together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        certificate, key = CA.issue("host").write(folder, "server")
        self.paths = {
            "cert_file": certificate,
            "key_file": key,
            "client_ca_file": CA.write(folder),
        }

    def other(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        path.chmod(0o600)
        return path

    def read(self) -> tls_files.TlsFiles:
        return tls_files.read("grpc", TlsSettings(**self.paths))

    def problem(self) -> str:
        with pytest.raises(ConfigError) as caught:
            self.read()
        return str(caught.value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_files_that_fit_are_returned(files: Files) -> None:
    assert files.read().certificate == files.paths["cert_file"].read_bytes()


def absent(files: Files) -> Path:
    return files.folder / "absent"


def folder(files: Files) -> Path:
    (files.folder / "folder").mkdir(mode=0o700)
    return files.folder / "folder"


def fifo(files: Files) -> Path:
    os.mkfifo(files.folder / "fifo", 0o600)
    return files.folder / "fifo"


def junk(files: Files) -> Path:
    return files.other("junk", b"\0\xff-----BEGIN\n")


def empty(files: Files) -> Path:
    return files.other("empty", b"")


def huge(files: Files) -> Path:
    path = files.other("huge", b"")
    os.truncate(path, 1 << 30)
    return path


def cut_short(files: Files) -> Path:
    lines = CA.pem.splitlines(keepends=True)
    return files.other("cut", b"".join((*lines[:3], lines[-1])))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (absent, "No such file or directory"),
        (folder, "is a directory"),
        (fifo, "is not a regular file"),
        (huge, "has more than 4194304 bytes"),
        (junk, "in PEM form"),
        (empty, "in PEM form"),
        (cut_short, "damaged certificate|no private key"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_by_its_setting(
    files: Files, name: str, make: Callable[[Files], Path], says: str
) -> None:
    path = make(files)
    files.paths[name] = path
    problem = files.problem()
    variable = f"CACHESVC_GRPC__TLS__{name.upper()}"
    assert problem.startswith(f"grpc.tls.{name} ({variable}): {path}: ")
    assert any(text in problem for text in says.split("|"))
    assert "\n" not in problem
    assert "_ssl.c" not in problem


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_may_not_be_read_is_named_by_its_setting(files: Files, name: str) -> None:
    files.paths[name].chmod(0)
    assert f"grpc.tls.{name} " in files.problem()
    assert files.problem().endswith("Permission denied")


def test_another_certificates_key_is_said_to_be_one(files: Files) -> None:
    _, files.paths["key_file"] = CA.issue("host").write(files.folder, "other")
    assert "is not the key of the certificate in" in files.problem()


def test_certificate_and_key_in_each_others_place_are_found(files: Files) -> None:
    paths = files.paths
    paths["cert_file"], paths["key_file"] = paths["key_file"], paths["cert_file"]
    paths["key_file"].chmod(0o600)
    assert "grpc.tls.key_file" in files.problem()
    assert "holds no private key" in files.problem()


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
def test_an_encrypted_key_is_refused_and_nobody_asked_for_its_password(
    files: Files, form: PrivateFormat
) -> None:
    key = load_pem_private_key(files.paths["key_file"].read_bytes(), password=None)
    encrypted = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"a password"))
    files.paths["key_file"] = files.other("encrypted", encrypted)
    assert "the key is encrypted" in files.problem()


def test_a_key_in_place_of_the_authority_is_refused(files: Files) -> None:
    files.paths["client_ca_file"] = files.paths["key_file"]
    assert "grpc.tls.client_ca_file" in files.problem()
    assert "holds no certificate" in files.problem()


def test_all_listeners_problems_are_named_together(files: Files, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    tls = {**files.paths, "cert_file": absent}
    listening = {"listen": "127.0.0.1:0", "tls": tls}
    settings = Settings(grpc=listening, http=listening)
    with pytest.raises(ConfigError) as caught:
        tls_files.check_all(settings)
    for listener in ("GRPC", "HTTP"):
        assert f"CACHESVC_{listener}__TLS__CERT_FILE): {absent}" in str(caught.value)


def test_a_listener_that_is_off_is_not_looked_at(files: Files, tmp_path: Path) -> None:
    tls = {**files.paths, "cert_file": tmp_path / "absent.pem"}
    tls_files.check_all(Settings(grpc={"tls": tls}, http={"listen": "", "tls": tls}))


def test_a_variable_that_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(f"CACHESVC_HTTP__TLS__{name.upper()}", "")
    assert Settings().http.tls == TlsSettings()
