"""Does `cachesvc serve` start, end and refuse as its exit codes say?"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc_client import CacheClient
from tests.cli.conftest import RunApart, environment
from tests.support import sample_objects, server_processes
from tests.support.certificates import Authority
from tests.support.sample_objects import fresh_id, put_in_folder

ANSWERS_WITHIN_S = 20.0


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "origin").mkdir()
    # Not tmp_path: a socket's path may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as runtime_dir:
        yield {
            "RUNTIME_DIR": runtime_dir,
            "STATE_DIR": str(tmp_path / "state"),
            "L1__MAX_BYTES": str(64 << 20),
            "L2__ROOT": str(tmp_path / "l2"),
            "L2__FREE_FLOOR_BYTES": "0",
            "HTTP__LISTEN": "",
            "ORIGIN__KIND": "directory",
            "ORIGIN__PATH": str(tmp_path / "origin"),
        }


def _start(settings: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    command = (sys.executable, "-m", "cachesvc", "serve")
    return server_processes.start(command, log, env=environment(settings))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_answers_and_ends_with_code_0(
    settings: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    user = fresh_id("u")
    put_in_folder(Path(settings["ORIGIN__PATH"]), sample_objects.person(user))
    log = tmp_path / "log"
    process = _start(settings, log)
    try:
        socket = f"{settings['RUNTIME_DIR']}/cachesvc.sock"
        with CacheClient(socket, wait_s=ANSWERS_WITHIN_S) as client:
            assert client.get_human(user).info.size_bytes > 0
        process.send_signal(number)
        assert process.wait(ANSWERS_WITHIN_S) == 0
    finally:
        server_processes.kill(process)
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["serving", "client_attached", "filled", "draining", "stopped"]
    assert user not in log.read_text()


def test_the_service_manager_hears_of_a_daemon_that_serves_already(
    settings: dict[str, str], tmp_path: Path
) -> None:
    """It also hears of the end before the end; in between, the loop gives signs of life."""
    address = f"{settings['RUNTIME_DIR']}.notify"
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as inbox:
        inbox.bind(address)
        inbox.settimeout(ANSWERS_WITHIN_S)
        asked = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        command = (sys.executable, "-m", "cachesvc", "serve")
        process = server_processes.start(
            command, tmp_path / "log", env={**environment(settings), **asked}
        )
        try:
            assert inbox.recv(4096) == b"READY=1\nSTATUS=serving"
            health = (sys.executable, "-m", "cachesvc", "health", "--ready", "--timeout", "20")
            subprocess.run(health, env=environment(settings), check=True)
            assert inbox.recv(4096) == b"WATCHDOG=1"
            process.terminate()
            said = [inbox.recv(4096)]
            while said[-1] == b"WATCHDOG=1":
                said.append(inbox.recv(4096))
            assert said[-1] == b"STOPPING=1\nSTATUS=draining"
            assert process.wait(ANSWERS_WITHIN_S) == 0
        finally:
            server_processes.kill(process)
            Path(address).unlink()


@pytest.mark.parametrize(
    ("name", "value"),
    [("L1__MAX_BYTES", "much"), ("GRPC__LISTEN", "0.0.0.0:1"), ("ORIGIN__KIND", "tape")],
)
def test_a_setting_that_cannot_work_is_code_2_and_names_the_variable(
    run_apart: RunApart, settings: dict[str, str], name: str, value: str
) -> None:
    refused = run_apart("serve", **{**settings, name: value})
    assert refused.returncode == 2
    assert f"CACHESVC_{name}" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("listener", ["GRPC", "HTTP"])
def test_a_tls_file_that_cannot_be_used_is_code_2_before_anything_is_made(
    run_apart: RunApart, settings: dict[str, str], tmp_path: Path, listener: str
) -> None:
    certificate, _ = Authority("ca").issue("host").write(tmp_path, "server")
    _, others_key = Authority("ca").issue("host").write(tmp_path, "other")
    tls = {
        f"{listener}__LISTEN": "127.0.0.1:0",
        f"{listener}__TLS__CERT_FILE": str(certificate),
        f"{listener}__TLS__KEY_FILE": str(others_key),
    }
    refused = run_apart("serve", **{**settings, **tls})
    assert refused.returncode == 2
    assert f"(CACHESVC_{listener}__TLS__KEY_FILE): {others_key}: is not the key" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "state").exists()


def test_a_config_file_that_is_not_there_is_code_2(run_apart: RunApart, tmp_path: Path) -> None:
    refused = run_apart("serve", "--config", str(tmp_path / "absent.toml"))
    assert refused.returncode == 2
    assert "absent.toml" in refused.stderr


@pytest.mark.parametrize("shared", ["RUNTIME_DIR", "L2__ROOT"])
def test_a_second_daemon_on_the_same_directory_is_code_2(
    run_apart: RunApart, settings: dict[str, str], tmp_path: Path, shared: str
) -> None:
    second = {
        **settings,
        "RUNTIME_DIR": f"{settings['RUNTIME_DIR']}/second",
        "STATE_DIR": str(tmp_path / "second-state"),
        "L2__ROOT": str(tmp_path / "second-l2"),
        shared: settings[shared],
    }
    process = _start(settings, tmp_path / "log")
    try:
        socket = f"{settings['RUNTIME_DIR']}/cachesvc.sock"
        with CacheClient(socket, wait_s=ANSWERS_WITHIN_S) as client:
            client.stats()
            refused = run_apart("serve", **second)
            assert refused.returncode == 2
            assert "another cachesvc daemon owns this directory" in refused.stderr
            client.stats()  # the first daemon still serves
    finally:
        server_processes.kill(process)


def test_the_daemon_loads_neither_other_commands_nor_an_origin_that_is_not_used() -> None:
    code = """
import sys
from cachesvc.cli import entry
from cachesvc.cli.serve import command
from cachesvc import process
unwanted = ["typer", "rich", "aiobotocore", "botocore", "boto3", "cachesvc.origin.directory"]
print([name for name in unwanted if name in sys.modules])
"""
    hidden = """
from cachesvc.cli.serve.command import _hidden
with _hidden("rich"):
    import structlog
"""
    done = subprocess.run(
        [sys.executable, "-c", hidden + code],
        env=environment({}),
        capture_output=True,
        text=True,
        check=True,
        timeout=ANSWERS_WITHIN_S,
    )
    assert done.stdout == "[]\n"


def test_only_contexts_that_aiohttp_makes_as_it_is_loaded_read_no_ca_bundle() -> None:
    code = """
import ssl
from cachesvc.cli.serve.command import _no_default_roots
usual = ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths
with _no_default_roots():
    import aiohttp
    assert not ssl.create_default_context().get_ca_certs()
assert (ssl.SSLContext.load_default_certs, ssl.SSLContext.set_default_verify_paths) == usual
"""
    command = [sys.executable, "-c", code]
    subprocess.run(command, env=environment({}), check=True, timeout=ANSWERS_WITHIN_S)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("L2__ROOT", "FILE", ["l2.root (CACHESVC_L2__ROOT)", "Not a directory"]),
        ("STATE_DIR", "FILE", ["state_dir (CACHESVC_STATE_DIR)", "Not a directory"]),
        ("RUNTIME_DIR", "FILE", ["runtime_dir (CACHESVC_RUNTIME_DIR)", "Not a directory"]),
        ("L2__ROOT", "/proc/cache", ["l2.root (CACHESVC_L2__ROOT)"]),
        ("STATE_DIR", "/proc/cache", ["state_dir (CACHESVC_STATE_DIR)"]),
        ("L2__MAX_BYTES", "900TiB", ["l2.max_bytes", "900 TiB", "in all"]),
        ("L2__FREE_FLOOR_BYTES", "900TiB", ["l2.free_floor_bytes", "900 TiB"]),
        ("L1__MAX_BYTES", "900TiB", ["l1.max_bytes (CACHESVC_L1__MAX_BYTES) is 900 TiB"]),
        ("HTTP__LISTEN", "192.0.2.1:80", ["CACHESVC_HTTP__TLS__CERT_FILE"]),
        ("GROUP", "no-such-group", ["group (CACHESVC_GROUP)"]),
    ],
)
def test_what_this_host_cannot_give_ends_the_start_by_the_settings_name(
    run_apart: RunApart,
    settings: dict[str, str],
    tmp_path: Path,
    name: str,
    value: str,
    words: list[str],
) -> None:
    (tmp_path / "file").touch()
    refused = run_apart("serve", **{**settings, name: value.replace("FILE", f"{tmp_path}/file")})
    assert refused.returncode == 2
    said = refused.stderr.splitlines()[-1]
    for word in words:
        assert word in said
    assert "Traceback" not in refused.stderr


def test_a_runtime_directory_on_a_disk_and_a_stranger_are_warned_of_at_the_start(
    settings: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # A socket's path may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/var/tmp") as on_disk:
        here = {**settings, "RUNTIME_DIR": on_disk, "L2_ROOT": "/x", "PORT": "tcp://10.0.0.1:9090"}
        process = _start(here, log)
        try:
            with CacheClient(f"{on_disk}/cachesvc.sock", wait_s=ANSWERS_WITHIN_S) as client:
                client.stats()
            process.send_signal(signal.SIGTERM)
            assert process.wait(ANSWERS_WITHIN_S) == 0
        finally:
            server_processes.kill(process)
    lines = {line["event"]: line for line in map(json.loads, log.read_text().splitlines())}
    stranger = lines["unknown_variables"]
    assert (stranger["level"], stranger["nearest"]) == (
        "warning",
        {"CACHESVC_L2_ROOT": "CACHESVC_L2__ROOT"},
    )
    on_a_disk = lines["runtime_dir_is_on_a_disk"]
    assert on_a_disk["level"] == "warning"
    assert "runtime_dir (CACHESVC_RUNTIME_DIR)" in on_a_disk["problem"]
