"""Which daemons does a client trust: root's, its own user's, and a named user's. Promise 10."""

from __future__ import annotations

import contextlib
import gc
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc_client import (
    AsyncCacheClient,
    CacheClient,
    CacheUnreachable,
    InvalidSettings,
)
from cachesvc_client._door import open_door
from cachesvc_client._trust import Trust, trust_of
from cachesvc_client.v2 import TwoLevelCacheV2
from tests.client.support import values
from tests.client.support.processes import ServerProcess
from tests.client.support.scripted_server import ScriptedServer
from tests.client.support.users import (
    NEIGHBOUR,
    STRANGER,
    as_user,
    needs_root,
    served_by,
    stats_of,
)

# Waiting would not change any of these errors, so no call may wait.
NEVER_S = 600
CALLS: dict[str, Callable[[CacheClient], Any]] = {
    "get": lambda client: client.get_human("u1"),
    "streamed get": lambda client: client.get("human_upper_body", "u1"),
    "put": lambda client: client.put_human("u1", **values.human()),
    "invalidate": lambda client: client.invalidate(user_id="u1"),
    "warm": lambda client: list(client.warm("u1")),
    "inspect": lambda client: client.inspect("human_upper_body", "u1"),
    "stats": lambda client: client.stats(),
}


@pytest.fixture
def planted(socket: Path) -> Iterator[Callable[[], list[str]]]:
    """A stranger has made the runtime directory before the daemon, and serves there."""
    os.chown(socket.parent, STRANGER, STRANGER)
    socket.parent.chmod(0o755)
    with served_by(STRANGER, socket) as calls:
        socket.chmod(0o777)
        yield calls


@needs_root
@pytest.mark.parametrize("name", CALLS)
def test_a_strangers_socket_is_asked_nothing_and_told_nothing(
    socket: Path, planted: Callable[[], list[str]], name: str
) -> None:
    with (
        CacheClient(str(socket), wait_s=NEVER_S) as client,
        pytest.raises(CacheUnreachable) as refused,
    ):
        CALLS[name](client)
    assert refused.value.reason == "DAEMON_NOT_TRUSTED"
    assert str(socket) in refused.value.message
    assert f"belongs to user {STRANGER}" in refused.value.message
    assert f"CACHESVC_DAEMON_USER={STRANGER}" in refused.value.message
    assert planted() == []


@needs_root
async def test_the_asyncio_client_refuses_a_stranger_too(
    socket: Path, planted: Callable[[], list[str]]
) -> None:
    async with AsyncCacheClient(str(socket), wait_s=NEVER_S) as client:
        with pytest.raises(CacheUnreachable, match=f"belongs to user {STRANGER}"):
            await client.get_human("u1")
        with pytest.raises(CacheUnreachable):
            await client.put_human("u1", **values.human())
    assert planted() == []


@needs_root
def test_v2s_class_refuses_a_stranger_too(socket: Path, planted: Callable[[], list[str]]) -> None:
    with pytest.raises(CacheUnreachable):
        TwoLevelCacheV2(target=str(socket)).clear_human("u1")
    assert planted() == []


@needs_root
def test_the_user_that_was_named_is_believed(
    socket: Path, planted: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with CacheClient(str(socket), daemon_user=STRANGER) as client:
        assert client.stats().puts == 0
    with CacheClient(str(socket), daemon_user=str(STRANGER)) as client:
        assert client.stats().puts == 0
    monkeypatch.setenv("CACHESVC_DAEMON_USER", str(STRANGER))
    with CacheClient(str(socket)) as client:
        assert client.stats().puts == 0
    # The argument counts for this client, whatever the variable says.
    with (
        CacheClient(str(socket), daemon_user=NEIGHBOUR) as client,
        pytest.raises(CacheUnreachable, match=f"or CACHESVC_DAEMON_USER={NEIGHBOUR}"),
    ):
        client.stats()


@needs_root
def test_a_worker_believes_root_and_its_own_user_and_nobody_else(
    socket: Path, planted: Callable[[], list[str]]
) -> None:
    assert as_user(STRANGER, stats_of, socket) == "0 puts"
    assert as_user(NEIGHBOUR, stats_of, socket) == "DAEMON_NOT_TRUSTED"
    assert as_user(NEIGHBOUR, stats_of, socket, STRANGER) == "0 puts"


@needs_root
def test_a_worker_believes_root(socket: Path) -> None:
    socket.parent.chmod(0o755)
    with ScriptedServer(socket):
        socket.chmod(0o777)
        assert as_user(NEIGHBOUR, stats_of, socket) == "0 puts"


@needs_root
def test_a_strangers_socket_in_a_directory_that_everybody_may_write_to_is_refused(
    socket: Path,
) -> None:
    socket.parent.chmod(0o777)
    with served_by(STRANGER, socket) as calls:
        assert stats_of(socket) == "DAEMON_NOT_TRUSTED"
        assert calls() == []


def test_users_are_compared_for_the_socket_its_directory_and_its_listener(socket: Path) -> None:
    seen: list[str] = []

    class Noting(Trust):
        def check(self, what: str, uid: int) -> None:
            seen.append(f"{what} {uid}")

    with ScriptedServer(socket):
        open_door(str(socket), Noting()).close()
    own = os.geteuid()
    assert seen == [
        f"the socket {socket} {own}",
        f"the directory {socket.parent} {own}",
        f"the process that listens at {socket} {own}",
    ]


@needs_root
def test_a_trusted_socket_in_a_strangers_directory_is_refused(socket: Path) -> None:
    # The directory's owner may replace the socket with another daemon's at any moment.
    with ScriptedServer(socket) as server:
        os.chown(socket.parent, STRANGER, STRANGER)
        assert stats_of(socket) == "DAEMON_NOT_TRUSTED"
        assert server.calls == []


@needs_root
def test_a_link_in_a_strangers_directory_is_not_followed_to_a_trusted_socket(
    socket: Path, tmp_path: Path
) -> None:
    link = tmp_path / "cachesvc.sock"
    with ScriptedServer(socket) as server:
        link.symlink_to(socket)
        assert stats_of(link) == "0 puts"
        os.chown(tmp_path, STRANGER, STRANGER)
        assert stats_of(link) == "DAEMON_NOT_TRUSTED"
        assert server.calls == ["Stats"]


@needs_root
def test_a_stranger_who_listens_on_a_socket_that_looks_trusted_is_refused(socket: Path) -> None:
    socket.parent.chmod(0o777)
    with served_by(STRANGER, socket) as calls:
        os.chown(socket, 0, 0)
        socket.parent.chmod(0o755)
        assert stats_of(socket) == "DAEMON_NOT_TRUSTED"
        assert calls() == []


@needs_root
def test_a_socket_that_is_swapped_after_the_look_gets_no_connection(
    socket: Path, tmp_path: Path
) -> None:
    """The client checks the name once; its connection goes to the socket that it checked."""
    socket.parent.chmod(0o777)
    with ScriptedServer(socket) as server, CacheClient(str(socket), wait_s=NEVER_S) as client:
        client._link._channels.current()  # type: ignore[attr-defined]  # checked, not connected
        socket.rename(socket.with_name("moved"))
        with served_by(STRANGER, socket) as calls:
            assert client.stats().puts == 0
            assert calls() == []
    assert server.calls == ["Stats"]


@needs_root
def test_a_client_that_was_served_refuses_the_stranger_who_comes_after_its_daemon(
    socket: Path,
) -> None:
    with CacheClient(str(socket), wait_s=NEVER_S) as client:
        with ScriptedServer(socket):
            assert client.stats().puts == 0
        shutil.rmtree(socket.parent)
        socket.parent.mkdir()
        os.chown(socket.parent, STRANGER, STRANGER)
        with served_by(STRANGER, socket) as calls:
            with pytest.raises(CacheUnreachable):
                client.put_human("u1", **values.human())
            assert calls() == []
        socket.parent.chmod(0o700)
        os.chown(socket.parent, 0, 0)


@needs_root
def test_a_stranger_who_is_there_first_does_not_keep_a_client_from_its_daemon_later(
    socket: Path, planted: Callable[[], list[str]]
) -> None:
    with CacheClient(str(socket)) as client:
        with pytest.raises(CacheUnreachable):
            client.stats()
        socket.unlink()
        os.chown(socket.parent, 0, 0)
        with ScriptedServer(socket):
            assert client.stats().puts == 0


@needs_root
def test_a_purge_does_not_go_to_a_strangers_admin_socket(socket: Path) -> None:
    admin = socket.with_name("admin.sock")
    socket.parent.chmod(0o777)
    with ScriptedServer(socket) as server, served_by(STRANGER, admin) as calls:
        admin.chmod(0o777)
        with CacheClient(str(socket), wait_s=NEVER_S) as client:
            with pytest.raises(CacheUnreachable, match=r"admin\.sock"):
                client.invalidate(everything=True)
            assert client.stats().puts == 0
        assert calls() == []
    assert server.calls == ["Stats"]


FORK = f"""
import os, sys
from cachesvc_client import CacheClient, CacheUnreachable
client = CacheClient(sys.argv[1])
assert client.get_human("u1").info.key.id == "u1"
os.chown(os.path.dirname(sys.argv[1]), {STRANGER}, {STRANGER})
child = os.fork()
if child:
    assert client.get_human("u1").is_current()
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    client.stats()
except CacheUnreachable as error:
    os._exit(0 if error.reason == "DAEMON_NOT_TRUSTED" else 3)
os._exit(4)
"""


@needs_root
def test_a_forked_child_looks_for_itself(socket: Path) -> None:
    with ServerProcess(socket):
        ended = subprocess.run(
            [sys.executable, "-c", FORK, str(socket)],
            env={"PYTHONPATH": "client"},
            timeout=50,
            check=False,
        )
    assert ended.returncode == 0


def test_a_user_that_this_host_does_not_know_is_named_at_once() -> None:
    with pytest.raises(InvalidSettings, match=r"CACHESVC_DAEMON_USER.*no user named 'nobodyy'"):
        CacheClient(daemon_user="nobodyy")
    assert trust_of("root", {}).daemon_uid == 0
    own = pwd.getpwuid(os.geteuid()).pw_name
    assert trust_of(None, {"CACHESVC_DAEMON_USER": own}).daemon_uid == os.geteuid()
    assert trust_of(None, {"CACHESVC_DAEMON_USER": ""}).daemon_uid is None


def test_users_whom_a_namespace_does_not_map_are_not_recommended() -> None:
    assert "one mapping" in Trust().why_not("the socket /run/x", 65534)


@pytest.mark.parametrize("name", ["with #, ?, % and a space", "f" * 150])
def test_a_directory_may_have_any_name(socket: Path, name: str) -> None:
    """The client connects through a descriptor of the socket: a socket's path has at most 107
    bytes.
    """
    with ScriptedServer(socket):
        odd = socket.parent / name
        odd.mkdir()
        (odd / "cachesvc.sock").symlink_to(socket)
        assert stats_of(odd / "cachesvc.sock") == "0 puts"


def test_a_restarted_daemons_old_socket_is_let_go(server: ScriptedServer, socket: Path) -> None:
    with CacheClient(server.target) as client:
        for _ in range(3):
            client.stats()
            server.stop()
            server.start()
        client.stats()
        gc.collect()
        assert held(socket) == [str(socket)]
    gc.collect()
    assert held(socket) == []


def held(socket: Path) -> list[str]:
    """Return this process's open files whose path began with a socket's."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [path for path in found if path.startswith(str(socket))]
