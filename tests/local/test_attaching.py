"""When does a client use shared files, and what does it say when it does not?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachesvc_client import CacheClient, __version__
from cachesvc_client._local import LocalDelivery
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.local import steps
from tests.local.conftest import NewWorker
from tests.local.versioned import put_version, version_of
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id

NewClient = Callable[..., CacheClient]


@pytest.fixture
def tcp_target(new_daemon: NewDaemon, new_client: NewClient) -> tuple[str, str]:
    """A daemon's TCP address, and the id of a text that it has."""
    daemon, text = new_daemon(GRPC__LISTEN="127.0.0.1:0"), fresh_id("text")
    put_version(new_client(daemon), text, 1)
    return f"127.0.0.1:{grpc_port(daemon)}", text


def grpc_port(daemon: Daemon) -> int:
    for line in daemon.log_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "serving":
            return int(entry["grpc_port"])
    raise AssertionError("the daemon does not say where it serves")


def test_a_tcp_caller_on_the_daemons_host_uses_shared_files(
    tcp_target: tuple[str, str], new_worker: NewWorker
) -> None:
    target, text = tcp_target
    worker = new_worker(target)
    assert worker.do(steps.get, "it", text) == 1
    assert worker.do(steps.is_mapped, "it")
    assert worker.do(steps.transport) == "shared_file"


def test_a_caller_that_sees_no_runtime_directory_is_answered_inline_and_says_so_once(
    tcp_target: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    target, text = tcp_target
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", str(elsewhere))
    monkeypatch.setattr(LocalDelivery, "wants_attach", _always)
    with CacheClient(target) as client:
        for _ in range(3):
            assert version_of(client.get_text(text)) == 1
        assert client.transport == f"inline: {elsewhere}: No such file or directory"
    assert caplog.messages == [
        f"answers are sent inline, not as shared files: {elsewhere}: No such file or directory"
    ]


@pytest.fixture
def own_daemon(new_daemon: NewDaemon) -> Iterator[tuple[Daemon, str, str]]:
    """A daemon, a link to its socket from another directory, and the id of a text that it has."""
    daemon, text = new_daemon(), fresh_id("text")
    with CacheClient(daemon.target) as client:
        put_version(client, text, 1)
    # Not tmp_path: a socket's path may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="cc-") as folder:
        link = Path(folder, "cachesvc.sock")
        link.symlink_to(daemon.socket)
        yield daemon, f"unix:{link}", text


def test_nothing_is_said_of_the_sockets_directory_if_the_daemon_names_another(
    own_daemon: tuple[Daemon, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, target, text = own_daemon
    with CacheClient(target) as client:
        assert version_of(client.get_text(text)) == 1
        assert client.transport == "shared_file"
    assert caplog.messages == []


def test_each_reason_for_inline_answers_is_logged_once_and_only_after_the_last_try(
    own_daemon: tuple[Daemon, str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    daemon, target, text = own_daemon
    named, moved = daemon.runtime_dir, daemon.runtime_dir.with_name(f"{daemon.runtime_dir.name}-m")
    link = Path(target.removeprefix("unix:"))
    monkeypatch.setattr(LocalDelivery, "wants_attach", _always)
    named.rename(moved)
    try:
        link.unlink()
        link.symlink_to(moved / daemon.socket.name)
        with CacheClient(target) as client:
            for _ in range(2):
                client.get_text(text)
                named.touch()
                client.get_text(text)
                named.unlink()
    finally:
        moved.rename(named)
    start = f"answers are sent inline, not as shared files: {named}"
    assert caplog.messages == [f"{start}: No such file or directory", f"{start}: Not a directory"]


def test_a_caller_without_a_page_looks_again_only_after_a_while(
    tcp_target: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, text = tcp_target
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", str(tmp_path))
    with CacheClient(target) as client:
        client.get_text(text)
        local = client._local
        tried_s = local._next_attach_s
        client.get_text(text)
        assert local._next_attach_s == tried_s
        assert not local.wants_attach(tried_s - 0.1)
        assert local.wants_attach(tried_s)


def test_another_mount_path_is_named_by_the_runtime_directory_variable(
    daemon: Daemon, client: CacheClient, new_worker: NewWorker, tmp_path: Path
) -> None:
    text, mounted = fresh_id("text"), tmp_path / "mounted"
    put_version(client, text, 1)
    mounted.symlink_to(daemon.runtime_dir, target_is_directory=True)
    worker = new_worker(daemon.target, environment={"CACHESVC_RUNTIME_DIR": str(mounted)})
    assert worker.do(steps.get, "it", text) == 1
    assert worker.do(steps.is_mapped, "it")
    client.invalidate(clothing_id=text)
    assert worker.do(steps.try_get, text) != "served"


def test_a_worker_that_may_not_read_the_files_is_answered_inline(
    new_daemon: NewDaemon, new_client: NewClient, new_worker: NewWorker
) -> None:
    # A named file that cannot be opened must not make the Get fail.
    daemon, text, other = new_daemon(), fresh_id("text"), fresh_id("text")
    client, worker = new_client(daemon), new_worker(daemon.target)
    put_version(client, other, 2)
    assert worker.do(steps.get_and_drop, other) == 2
    put_version(client, text, 1)
    for file in (daemon.runtime_dir / "l1").iterdir():
        file.unlink()
        file.symlink_to("/dev/null")
    assert worker.do(steps.get, "it", text) == 1
    assert not worker.do(steps.is_mapped, "it")
    why = "shared files cannot be used: Too many levels of symbolic links"
    assert worker.do(steps.transport) == f"inline: {why}"


def test_the_log_names_each_clients_version_once_and_not_whatever_is_said(
    own_daemon: tuple[Daemon, str, str],
) -> None:
    """Promise 5: the daemon remembers and logs a bounded number of the versions that callers
    name.
    """
    daemon, target, text = own_daemon
    for _ in range(2):
        with CacheClient(target) as client:
            client.get_text(text)
    stub = daemon.stub()
    for version in ("", "1 2", "user-7", "9" * 33, *(f"9.{n}" for n in range(40))):
        stub.Attach(pb.AttachRequest(client_version=version))
    lines = (json.loads(line) for line in daemon.log_text().splitlines())
    logged = [line["client_version"] for line in lines if line["event"] == "client_attached"]
    assert logged == [__version__, *(f"9.{n}" for n in range(15))]


def _always(self: LocalDelivery, now_s: float) -> bool:
    return True
