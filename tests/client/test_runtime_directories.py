"""Does every runtime directory that the daemon accepts work for its clients, and no other?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc import config
from cachesvc.core.errors import ConfigError
from cachesvc_client import CacheClient, InvalidSettings
from cachesvc_client._target import resolve
from cachesvc_format.paths import MAX_SOCKET_PATH_BYTES
from tests.client.support import values
from tests.conftest import NewDaemon
from tests.support.daemons import ROOT, Daemon

ODD_NAME = "a#b?c,d%20e f%2Fg%zz:@=&;'\"\\[1]{2}*$x!ä漢字😀 .sock"
ACCEPTED = [
    "/dev/shm/cachesvc",
    "/dev/shm/cachesvc/",
    "//dev//shm/./cachesvc",
    "/dev/shm/x/../cachesvc",
    "/run/~x",
    "/-x",
    "/a b ",
    *(f"/run/{char}" for char in ODD_NAME if char != "/"),
]
# With the words that the refusal has to have.
REFUSED = {
    "cachesvc": "begins with /",
    "./cachesvc": "begins with /",
    "..": "begins with /",
    "run/cachesvc": "begins with /",
    "unix:/run/cachesvc": "begins with /",
    "~": "only a shell expands ~",
    "~/cachesvc": "only a shell expands ~",
    "~root/cachesvc": "only a shell expands ~",
    "$XDG_RUNTIME_DIR/cachesvc": "only a shell expands variables",
    "/run/${USER}": "only a shell expands variables",
    "/run/a\nb": "control characters",
    "/run/a\x7fb": "control characters",
    "/run/\udcff": "UTF-8",
    " ": "not empty",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cc-", dir="/dev/shm") as made:
        yield Path(made)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CACHESVC_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CACHESVC_ORIGIN__BUCKET", "a-bucket")


@pytest.mark.parametrize("path", ACCEPTED)
def test_a_directory_is_accepted_on_both_sides(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", path)
    socket = str(config.load().socket_path)
    assert Path(resolve(None, os.environ).removeprefix("unix:")) == Path(socket)


@pytest.mark.parametrize("variable", ["CACHESVC_RUNTIME_DIR", "CACHESVC_GRPC__SOCKET"])
@pytest.mark.parametrize("path", REFUSED)
def test_a_directory_is_refused_on_both_sides_in_the_same_words(
    path: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, path)
    with pytest.raises(ConfigError, match=REFUSED[path]) as daemon:
        config.load()
    with pytest.raises(InvalidSettings, match=REFUSED[path]) as client:
        CacheClient()
    assert client.value.reason == "TARGET_INVALID"
    assert variable in str(daemon.value)
    assert variable in client.value.message


@pytest.mark.parametrize(
    ("variable", "name"),
    [("CACHESVC_RUNTIME_DIR", "/cachesvc.sock"), ("CACHESVC_GRPC__SOCKET", "")],
)
def test_a_socket_that_the_kernel_would_refuse_ends_the_start_with_its_limit(
    variable: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = "/" + "ä" * ((MAX_SOCKET_PATH_BYTES - len(name)) // 2)
    longest += "x" * (MAX_SOCKET_PATH_BYTES - len(longest.encode()) - len(name))
    monkeypatch.setenv(variable, longest)
    config.load()
    monkeypatch.setenv(variable, longest + "x")
    with pytest.raises(ConfigError, match=f"{variable}.* at most 107 bytes, and .* has 108"):
        config.load()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/run/a%20b.sock", "unix:/run/a%20b.sock"),
        ("unix:///run/s", "unix:/run/s"),
        ("unix:s.sock", "unix:{here}/s.sock"),
        ("./s.sock", "unix:{here}/s.sock"),
        ("run/s.sock", "unix:{here}/run/s.sock"),
        ("a:b/s.sock", "unix:{here}/a:b/s.sock"),
        ("localhost:8443", "localhost:8443"),
        ("[::1]:8443", "[::1]:8443"),
        ("dns:///host:8443", "dns:///host:8443"),
        ("ipv4:127.0.0.1:8443", "ipv4:127.0.0.1:8443"),
        ("unix-abstract:name", "unix-abstract:name"),
    ],
)
def test_a_target_is_a_path_or_an_address(target: str, expected: str) -> None:
    assert resolve(target, {}) == expected.format(here=Path.cwd())


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("", "a socket's path"),
        ("cachesvc.sock", r"a socket's path \(with a /\)"),
        ("localhost", "host:port"),
        ("localhost:", "host:port"),
        ("localhost:grpc", "host:port"),
        ("two words:80", "host:port"),
        ("~/s.sock", "only a shell expands ~"),
        ("unix:~/s.sock", "only a shell expands ~"),
        ("unix:", "not empty"),
        ("/run/a\0b", "control characters"),
    ],
)
def test_a_target_that_leads_nowhere_is_refused_at_once(target: str, why: str) -> None:
    with pytest.raises(InvalidSettings, match=why) as caught:
        CacheClient(target)
    assert caught.value.reason == "TARGET_INVALID"
    assert repr(target) in caught.value.message


def test_a_directory_of_any_name_serves_clients_and_commands(
    folder: Path, new_daemon: NewDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(folder / ODD_NAME)
    new_daemon(RUNTIME_DIR=directory)
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", directory)
    serve(None)
    ended = subprocess.run(
        [sys.executable, "-m", "cachesvc", "health", "--timeout", "20"],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (0, "serving\n")
    monkeypatch.delenv("CACHESVC_RUNTIME_DIR")
    for target in (f"{directory}/cachesvc.sock", f"unix:{directory}/cachesvc.sock"):
        serve(target)
    monkeypatch.chdir(folder)
    serve(f"{ODD_NAME}/cachesvc.sock")


def test_a_directory_of_the_longest_name_serves_clients_also_through_links(
    folder: Path, new_daemon: NewDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "real").mkdir()
    (folder / "up").symlink_to(folder / "real")
    room = MAX_SOCKET_PATH_BYTES - len(f"{folder}/up//cachesvc.sock")
    directory = f"{folder}/up/{'x' * room}"
    new_daemon(RUNTIME_DIR=f"{directory}/")
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", f"{directory}/")
    serve(None)
    # A mount or link of a worker's own may be longer: a client names a socket by a descriptor.
    longer = folder / ("l" * 200)
    longer.symlink_to(directory)
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", str(longer))
    serve(None)


def test_a_runtime_directory_that_is_a_link_ends_the_start_with_its_end(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "link").symlink_to("real")
    daemon = Daemon(tmp_path, {"RUNTIME_DIR": str(folder / "link")}, is_forked=True)
    try:
        assert daemon.start_in_vain() == 2
        assert f"{folder}/link: cannot be used as a directory: it is a link to real; name that" in (
            daemon.log_text()
        )
    finally:
        daemon.close()


def serve(target: str | None) -> None:
    """Let one client use the socket, the shared files and the admin socket there."""
    with CacheClient(target, wait_s=5) as client:
        client.put_human("u1", **values.human())
        for _ in range(2):
            assert client.get_human("u1").info.key.id == "u1"
        assert client.transport == "shared_file"
        assert client.invalidate(everything=True).removed_count == 1
