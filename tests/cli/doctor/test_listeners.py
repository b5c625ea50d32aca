"""Does doctor find who has a port or socket, who shares the host, and limits too low to serve?"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc.cli.doctor import listeners, versions
from cachesvc.cli.doctor.findings import Level
from tests.cli.doctor.conftest import Examine
from tests.support.daemons import Daemon


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which this process listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_somebody_has_is_an_error_that_names_them(
    examine: Examine, settings: dict[str, Any], taken: int
) -> None:
    settings["http"] = {"listen": f"127.0.0.1:{taken}"}
    found = examine(listeners.check_http)
    assert found.level is Level.ERROR
    assert f"pid {os.getpid()}" in found.message
    assert "CACHESVC_HTTP__LISTEN" in found.fix


def test_a_free_port_and_none_at_all_are_well(examine: Examine, settings: dict[str, Any]) -> None:
    settings["grpc"] = {"listen": "127.0.0.1:0"}
    assert examine(listeners.check_grpc).level is Level.OK
    assert examine(listeners.check_http).message == "this listener is off"


def test_a_running_daemons_own_port_and_socket_are_well(
    examine: Examine, settings: dict[str, Any], daemon: Daemon
) -> None:
    settings["http"] = {"listen": daemon.settings["HTTP__LISTEN"]}
    settings["runtime_dir"] = daemon.runtime_dir
    assert "the daemon, pid" in examine(listeners.check_http).message
    assert "listens" in examine(listeners.check_socket).message
    assert "this program is" in examine(versions.check_daemon).message


def test_a_socket_that_is_something_else_or_too_long_is_an_error(
    examine: Examine, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["grpc"] = {"socket": tmp_path}
    assert "not a socket" in examine(listeners.check_socket).message
    settings["grpc"] = {"socket": tmp_path / ("x" * 108)}
    assert "107" in examine(listeners.check_socket).message


def test_a_socket_that_nobody_listens_on_was_left_behind(
    examine: Examine, settings: dict[str, Any], runtime_dir: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(runtime_dir / "cachesvc.sock"))
    found = examine(listeners.check_socket)
    assert found.level is Level.OK
    assert "died" in found.message
    assert examine(versions.check_daemon).message == "no daemon runs with these settings"


def test_somebody_who_listens_and_is_no_daemon_is_a_warning(
    examine: Examine, runtime_dir: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(runtime_dir / "cachesvc.sock"))
        server.listen()
        found = examine(versions.check_daemon, deadline_s=0.3)
    assert found.level is Level.WARNING


@pytest.mark.parametrize(
    ("role", "people", "level"),
    [
        ("admin", "anna:x:1001:1001::/home/anna:/bin/bash\n", Level.WARNING),
        ("admin", "svc:x:1001:1001::/:/usr/sbin/nologin\n", Level.OK),
        ("admin", "nobody:x:65534:65534::/:/bin/sh\n", Level.OK),
        ("observer", "anna:x:1001:1001::/home/anna:/bin/bash\n", Level.OK),
    ],
)
def test_a_shared_host_whose_loopback_may_purge_is_a_warning(
    examine: Examine,
    settings: dict[str, Any],
    filesystem: Path,
    role: str,
    people: str,
    level: Level,
) -> None:
    settings["http"] = {"listen": "127.0.0.1:0", "loopback_role": role}
    with (filesystem / "etc/passwd").open("a") as passwd:
        passwd.write(people)
    assert examine(listeners.check_loopback_role).level is level


def test_a_group_must_exist(examine: Examine, settings: dict[str, Any]) -> None:
    assert examine(listeners.check_group).level is Level.OK
    settings["group"] = "no-such-group-here"
    assert examine(listeners.check_group).level is Level.ERROR
    settings["group"] = "root"
    assert examine(listeners.check_group, uid=0).level is Level.OK


def test_a_group_that_the_user_is_not_in_cannot_be_given_files(
    examine: Examine, settings: dict[str, Any]
) -> None:
    settings["group"] = "games"
    assert "not in group 'games'" in examine(listeners.check_group, uid=4321).message


def test_too_few_descriptors_for_the_entries_are_a_warning(
    examine: Examine, settings: dict[str, Any]
) -> None:
    assert examine(listeners.check_descriptors).level is Level.OK
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    settings["kinds"] = {"garment": {"max_entries": most}}
    assert examine(listeners.check_descriptors).level is Level.WARNING


def test_the_libraries_that_are_installed_here_are_well(examine: Examine) -> None:
    for check in (versions.check_libraries, versions.check_protobuf, versions.check_sqlite):
        assert examine(check).level is Level.OK
