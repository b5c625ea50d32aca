"""Promise 10: are settings refused that would let strangers in?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachesvc import config
from cachesvc.core.errors import ConfigError

TOKEN = '{ name = "nest", sha256 = "' + "ab" * 32 + '", roles = ["backend"] }'
WITH_TLS = '[grpc.tls]\ncert_file = "s.pem"\nkey_file = "s.key"\n'
BEYOND = '[grpc]\nlisten = "10.0.0.5:8443"\n'


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(config.ENV_PREFIX):
            monkeypatch.delenv(name)


def load(folder: Path, toml: str) -> config.Settings:
    file = folder / "cachesvc.toml"
    file.write_text('[origin]\nbucket = "my-bucket"\n' + toml)
    return config.load(file)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:8443", "[::1]:8443", ""])
def test_loopback_needs_no_credential(tmp_path: Path, listen: str) -> None:
    assert load(tmp_path, f'[grpc]\nlisten = "{listen}"\n').grpc.listen == listen


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        (BEYOND, ["grpc.listen", "GRPC__TLS__CERT_FILE", "access.tokens"]),
        ('[grpc]\nlisten = "0.0.0.0:8443"\n', ["grpc.listen", "GRPC__TLS__CERT_FILE"]),
        ('[grpc]\nlisten = "localhost.evil.example:8443"\n', ["grpc.listen"]),
        (BEYOND + WITH_TLS, ["access.certificates", "access.tokens", "access.file"]),
        (BEYOND + f"[access]\ntokens = [{TOKEN}]\n", ["GRPC__TLS__CERT_FILE"]),
        ('[grpc.tls]\ncert_file = "s.pem"\n', ["grpc.tls needs both"]),
        ('[grpc.tls]\nclient_ca_file = "ca.pem"\n', ["grpc.tls.client_ca_file needs"]),
        ('[access.certificates]\n"a.example" = ["worker"]\n', ["client_ca_file"]),
        ('[access.certificates]\n"a.example" = ["king"]\n', ["access.certificates.a.example"]),
        (f"[access]\ntokens = [{TOKEN}, {TOKEN}]\n", ["token nest is named twice"]),
        (f"[access]\ntokens = [{TOKEN.replace('ab' * 32, 'secret')}]\n", ["sha256"]),
        ('[access]\nfile = "/nowhere/access.toml"\n', ["access.file", "/nowhere/access.toml"]),
    ],
)
def test_what_would_let_strangers_in_is_refused_by_name(
    tmp_path: Path, toml: str, named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)
    for name in named:
        assert name in str(caught.value)


def test_tls_and_a_credential_open_a_port_beyond_loopback(tmp_path: Path) -> None:
    settings = load(tmp_path, BEYOND + WITH_TLS + f"[access]\ntokens = [{TOKEN}]\n")

    assert settings.grpc.tls.is_on


def test_a_file_of_grants_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "access.toml"
    file.write_text(f"tokens = [{TOKEN}]\n")
    file.chmod(0o646)
    with pytest.raises(ConfigError, match="every user may write"):
        load(tmp_path, f'[access]\nfile = "{file}"\n')


def test_a_list_of_callers_that_is_a_fifo_or_a_folder_is_refused_and_not_waited_for(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(ConfigError, match=rf"access\.file .*{name} is not a regular file"):
            load(tmp_path, f'[access]\nfile = "{tmp_path / name}"\n')
