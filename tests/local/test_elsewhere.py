"""Promise 1: is nothing stale for a worker that sees the daemon's directory in another way?

A link count is valid only in the daemon's own inode, a heartbeat only by the daemon's clock.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from cachesvc.tiers.control import replace_control_page, shows_removals
from cachesvc_client import CacheClient, CacheServiceError, _control
from cachesvc_client._files import Unusable, find_files
from cachesvc_client._local import LocalDelivery
from cachesvc_client._trust import Trust
from cachesvc_format.control_page import time_namespace
from tests.client.support.users import STRANGER, needs_root
from tests.conftest import NewDaemon
from tests.local.test_control_page import S, page, settle
from tests.local.versioned import put_version, version_of
from tests.support import mounts
from tests.support.daemons import ROOT, Daemon, wait_until
from tests.support.sample_objects import fresh_id

Mount = Callable[[Path, Path], AbstractContextManager[Path]]
# A Get of an invalidated text without an owner is refused, as it should be.
GONE = "gone"


class Reader:
    """A way to read a text: returns its version, or `gone`."""

    def __init__(self, client: CacheClient) -> None:
        self._client = client

    def read(self, text: str) -> str:
        try:
            return str(version_of(self._client.get_text(text)))
        except CacheServiceError:
            return GONE

    def transport(self) -> str:
        return self._client.transport


@contextmanager
def reader_at(daemon: Daemon, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Read as a container that has the daemon's directory mounted at `directory`."""
    with monkeypatch.context() as setting:
        setting.setenv("CACHESVC_RUNTIME_DIR", str(directory))
        client = CacheClient(str(directory / daemon.socket.name))
    with client:
        yield Reader(client)


def stale_gets(writer: CacheClient, read: Callable[[str], str], changes: int) -> list[str]:
    """Change one text `changes` times; return each read that an acknowledged change made stale."""
    text, stale = fresh_id("text"), []
    for version in range(changes):
        put_version(writer, text, version)
        stale += [f"{seen} after {version} was put" for seen in read_twice(read, text, version)]
        writer.invalidate(clothing_id=text)
        if (seen := read(text)) != GONE:
            stale.append(f"{seen} after an invalidation")
    return stale


def read_twice(read: Callable[[str], str], text: str, version: int) -> list[str]:
    """Read a text twice, the second time perhaps from a kept file; return what is not `version`."""
    return [seen for seen in (read(text), read(text)) if seen != str(version)]


CHANGES = [20, pytest.param(1_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("changes", CHANGES)
def test_through_a_bind_mount_nothing_is_stale_and_files_are_shared(
    daemon: Daemon,
    client: CacheClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: int,
) -> None:
    with (
        mounts.bind_mounted(daemon.runtime_dir, tmp_path / "seen") as seen,
        reader_at(daemon, seen, monkeypatch) as reader,
    ):
        assert stale_gets(client, reader.read, changes) == []
        assert reader.transport() == "shared_file"


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("mount", [mounts.cached, mounts.overlaid], ids=lambda m: m.__name__)
def test_through_another_filesystem_nothing_is_stale_and_answers_are_inline(
    daemon: Daemon,
    client: CacheClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mount: Mount,
    changes: int,
) -> None:
    with (
        mount(daemon.runtime_dir, tmp_path / "seen") as seen,
        reader_at(daemon, daemon.runtime_dir, monkeypatch) as reader,
    ):
        # The socket is the daemon's own: not every such filesystem passes a socket on.
        reader._client._local._directory = str(seen)
        assert stale_gets(client, reader.read, changes) == []
        assert "seen through another filesystem" in reader.transport()
    # The client logs it once, however often it looks again.
    assert len(caplog.messages) == 1


IN_ANOTHER_TIME = """
import sys
from cachesvc_client import CacheClient, CacheServiceError
from tests.local.versioned import version_of
client = CacheClient(sys.argv[1])
for line in sys.stdin:
    try:
        seen = version_of(client.get_text(line.strip()))
    except CacheServiceError:
        seen = "gone"
    print(seen, client.transport, flush=True)
"""


@pytest.fixture(params=[0, 1, 100_000])
def read_in_another_time(
    request: pytest.FixtureRequest, daemon: Daemon
) -> Iterator[Callable[[str], str]]:
    """Read in a process whose clocks are ahead by the parameter's seconds."""
    mounts.need("unshare")
    ahead = str(request.param)
    unshared = ("unshare", "--time", "--monotonic", ahead, "--boottime", ahead, "--fork")
    process = subprocess.Popen(
        [*unshared, sys.executable, "-c", IN_ANOTHER_TIME, daemon.target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdin, stdout = process.stdin, process.stdout

    def read(text: str) -> str:
        print(text, file=stdin, flush=True)
        seen, _, transport = stdout.readline().strip().partition(" ")
        assert transport.endswith("runs in another time namespace"), transport
        return seen

    try:
        yield read
        stdin.close()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        for pipe in (stdout, process.stderr):
            pipe.close()


@pytest.mark.parametrize("changes", CHANGES)
def test_in_another_time_namespace_nothing_is_stale_and_answers_are_inline(
    client: CacheClient, read_in_another_time: Callable[[str], str], changes: int
) -> None:
    assert stale_gets(client, read_in_another_time, changes) == []


# ---- what is compared


@pytest.fixture
def lookalike(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory where clients look, with an ever fresh page that has the daemon's boot id."""
    monkeypatch.setenv("CACHESVC_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(_control, "HEARTBEAT_LIMIT_NS", 600 * S)
    boot_id = (daemon.runtime_dir / "control").read_bytes()[16:32]
    (tmp_path / "control").write_bytes(page(boot_id=boot_id))
    (tmp_path / "l1").mkdir()
    settle(tmp_path)
    return tmp_path


def transport_of(target: str, text: str) -> str:
    with CacheClient(target) as client:
        client.get_text(text)
        return client.transport


@pytest.fixture
def text(client: CacheClient) -> str:
    text = fresh_id("text")
    put_version(client, text, 1)
    return text


def test_a_page_in_another_inode_than_the_daemons_is_not_believed(
    daemon: Daemon, text: str, lookalike: Path
) -> None:
    (lookalike / "copy").write_bytes((lookalike / "control").read_bytes())
    (lookalike / "copy").replace(lookalike / "control")
    how = transport_of(daemon.target, text)
    assert how.startswith(f"inline: {lookalike} is not the daemon's own")


def test_an_l1_in_another_inode_than_the_daemons_is_not_believed(
    daemon: Daemon, text: str, lookalike: Path
) -> None:
    settle(lookalike, l1=daemon.runtime_dir / "l1")
    how = transport_of(daemon.target, text)
    assert how.startswith(f"inline: {lookalike}/l1 is not the daemon's own")


def test_another_time_namespace_is_not_believed_however_fresh_its_heartbeat_looks(
    daemon: Daemon, text: str, lookalike: Path
) -> None:
    settle(lookalike, time_namespace=time_namespace() + 1)
    assert "another time namespace" in transport_of(daemon.target, text)


@needs_root
@pytest.mark.parametrize("whose", ["control", "."])
def test_files_of_a_user_who_is_not_trusted_are_not_used(
    daemon: Daemon, text: str, lookalike: Path, whose: str
) -> None:
    os.chown(lookalike / whose, STRANGER, STRANGER)
    how = transport_of(daemon.target, text)
    assert how.startswith(f"inline: the directory {lookalike} belongs to user {STRANGER}")


def test_an_older_daemon_that_does_not_say_where_it_is_shares_files_from_tmpfs_alone(
    daemon: Daemon, text: str, lookalike: Path
) -> None:
    settle_as_the_first_release(lookalike)
    assert "not in tmpfs" in transport_of(daemon.target, text)


def settle_as_the_first_release(directory: Path) -> None:
    with (directory / "control").open("r+b") as written:
        written.seek(40)
        written.write(bytes(40))


def test_files_of_an_older_daemon_in_tmpfs_are_shared(new_daemon: NewDaemon) -> None:
    daemon, text = new_daemon(), fresh_id("text")
    settle_as_the_first_release(daemon.runtime_dir)
    with CacheClient(daemon.target) as client:
        put_version(client, text, 1)
        for _ in range(2):
            assert version_of(client.get_text(text)) == 1
        assert client.transport == "shared_file"


# ---- a daemon whose own directory cannot be shared


def test_a_daemon_whose_directory_does_not_show_removals_shares_no_files(tmp_path: Path) -> None:
    """On NFS an open file is renamed, and keeps its link count; here an unlink fails altogether."""
    (tmp_path / "l1").mkdir()
    runtime_fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    control = replace_control_page(runtime_fd, None)
    with mounts.read_only(tmp_path / "l1") as l1:
        assert not control.start(l1)
        assert not control.allows_local_hits
        with pytest.raises(Unusable, match="belongs in tmpfs"):
            find_files(str(tmp_path), control.boot_id, Trust())
        # An unlink that failed and then succeeded does not change that.
        control.suspend("test")
        control.resume("test")
        assert not control.allows_local_hits
    control.close()
    os.close(runtime_fd)


def test_a_directory_in_tmpfs_shows_removals(daemon: Daemon) -> None:
    assert shows_removals(daemon.runtime_dir / "l1")
    assert list((daemon.runtime_dir / "l1").glob(".*")) == []
    assert not shows_removals(daemon.runtime_dir / "nowhere")


# ---- what fails later


def test_the_upkeep_outlives_a_descriptor_that_cannot_be_looked_at(
    daemon: Daemon,
    client: CacheClient,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As if the process had closed all its descriptors, or the filesystem had gone."""
    monkeypatch.setattr(LocalDelivery, "wants_attach", lambda self, now_s: not self.is_attached)
    for _ in range(2):
        client.get_text(text)
        local = client._local
        assert local._kept is not None
        (kept,) = local._kept._kept.values()
        os.close(kept.fd)
        wait_until(lambda: "Bad file descriptor" in client.transport, 20)
        assert version_of(client.get_text(text)) == 1
        assert client.transport == "shared_file"
        assert local._upkeep is not None
        assert local._upkeep.is_alive()
    assert len(caplog.messages) == 1


def test_a_get_outlives_a_descriptor_that_cannot_be_looked_at(
    client: CacheClient, text: str
) -> None:
    entry = client.get_text(text)
    local = client._local
    local._ended.set()  # so that no upkeep comes in between
    assert local._kept is not None
    (kept,) = local._kept._kept.values()
    os.close(kept.fd)
    assert version_of(client.get_text(text)) == 1
    assert "Bad file descriptor" in client.transport
    assert entry.is_current()
