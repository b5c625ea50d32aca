"""What does a command print if its target, socket or credentials are wrong? One line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.cli.conftest import Run
from tests.client.support.scripted_server import ScriptedServer
from tests.client.support.users import STRANGER, needs_root
from tests.support.certificates import Authority

COMMANDS = [
    ("stats",),
    ("get", "human", "u1"),
    ("invalidate", "--user", "u1"),
    ("warm", "--user", "u1"),
    ("health",),
]
AWAY, USAGE = 4, 2


@pytest.fixture
def socket() -> Iterator[Path]:
    # Not tmp_path: a socket's path may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cc-") as folder:
        yield Path(folder) / "cachesvc.sock"


def one_line(result: Result, code: int) -> str:
    """Return the line that a command wrote before it ended with `code`."""
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (code, "", 1)
    assert result.stderr.startswith("cachesvc: ")
    return result.stderr


# `warm` prints its progress before that line.
@needs_root
@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] != "warm"], ids=" ".join)
def test_a_strangers_socket_is_one_line(
    run_alone: Run, socket: Path, command: tuple[str, ...]
) -> None:
    with ScriptedServer(socket) as server:
        os.chown(socket, STRANGER, STRANGER)
        line = one_line(run_alone(*command, "--target", str(socket)), AWAY)
    assert f"CACHESVC_DAEMON_USER={STRANGER}" in line
    assert "starts a daemon" not in line
    assert server.calls == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_wrong_tls_variable_is_one_line_and_wrong_settings(
    run_alone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    certificate, _ = Authority("ours").issue("a").write(tmp_path, "a")
    _, other_key = Authority("ours").issue("b").write(tmp_path, "b")
    target = ("--target", "gpu1.invalid:8443")
    monkeypatch.setenv("CACHESVC_TLS_CA", str(tmp_path / "gone.pem"))
    assert "CACHESVC_TLS_CA" in one_line(run_alone(*command, *target), USAGE)
    monkeypatch.delenv("CACHESVC_TLS_CA")
    monkeypatch.setenv("CACHESVC_TLS_CERT", str(certificate))
    monkeypatch.setenv("CACHESVC_TLS_KEY", str(other_key))
    assert "CACHESVC_TLS_KEY" in one_line(run_alone(*command, *target), USAGE)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_token_that_would_travel_in_the_clear_is_one_line_and_wrong_settings(
    run_alone: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CACHESVC_TOKEN", "cachesvc_x")
    line = one_line(run_alone(*command, "--target", "gpu1.invalid:8443"), USAGE)
    assert "in the clear" in line


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_daemon_user_whom_this_host_does_not_know_is_one_line_and_wrong_settings(
    run_alone: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CACHESVC_DAEMON_USER", "nobodyy")
    assert "nobodyy" in one_line(run_alone(*command), USAGE)


def test_a_name_that_nobody_has_is_one_line(run_alone: Run) -> None:
    line = one_line(run_alone("stats", "--target", "gpu1.invalid:8443"), AWAY)
    assert "gpu1.invalid: " in line
    assert "starts a daemon" not in line
