"""Does a socket in the way end in a clear error, whoever left it?"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc.core.errors import ConfigError
from cachesvc.edge.grpc import left_sockets

# A user id without a name on any host.
STRANGER = 54_321


@pytest.fixture
def left() -> Iterator[Path]:
    """A socket that nobody listens on, in a directory that every user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "cachesvc.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
        yield path


def test_a_socket_that_nobody_listens_on_makes_way(left: Path) -> None:
    left_sockets.make_way(left)
    assert not left.exists()


def test_a_strangers_socket_in_a_sticky_directory_is_named_with_what_to_do(left: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    os.chown(left, 0, 0)
    left.chmod(0o666)
    left.parent.chmod(0o1777)
    with as_user(STRANGER), pytest.raises(ConfigError) as refused:
        left_sockets.make_way(left)
    assert "a socket of the user root that nobody listens on cannot be removed" in str(
        refused.value
    )
    assert left.is_socket()


def test_a_socket_that_may_not_be_opened_is_named_with_its_owner(left: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    os.chown(left, STRANGER, STRANGER)
    left.chmod(0o600)
    with as_user(STRANGER + 1), pytest.raises(ConfigError) as refused:
        left_sockets.make_way(left)
    assert f"a socket of the user {STRANGER} is there" in str(refused.value)


class as_user:  # noqa: N801 reads as a statement
    """Act on filesystems as another user, in this thread, for the duration of a `with`."""

    def __init__(self, uid: int) -> None:
        self._uid = uid

    def __enter__(self) -> None:
        os.seteuid(self._uid)

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)
