"""Is systemd told that the daemon serves, ends and lives, and does telling it never block?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from cachesvc.edge.service_manager import ServiceManager

PID = 4242
ARRIVES_WITHIN_S = 10.0
MORE_THAN_FITS = 10_000


@pytest.fixture
def inbox() -> Iterator[socket.socket]:
    """The manager's socket. Not in tmp_path: a socket's path may have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-") as folder:
        path = Path(folder) / "notify"
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as bound:
            bound.bind(str(path))
            bound.settimeout(ARRIVES_WITHIN_S)
            yield bound


def environment(inbox: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": inbox.getsockname(), **more}


def test_it_says_that_the_daemon_serves_and_that_it_ends(inbox: socket.socket) -> None:
    with contextlib.closing(ServiceManager.of(environment(inbox), PID)) as manager:
        manager.serving()
        manager.stopping()
    assert inbox.recv(4096) == b"READY=1\nSTATUS=serving"
    assert inbox.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_a_name_that_is_in_no_filesystem_is_reached_too() -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as inbox:
        inbox.bind("")  # the kernel chooses an address
        inbox.settimeout(ARRIVES_WITHIN_S)
        name = "@" + inbox.getsockname()[1:].decode()
        with contextlib.closing(ServiceManager.of({"NOTIFY_SOCKET": name}, PID)) as manager:
            manager.stopping()
        assert inbox.recv(4096).startswith(b"STOPPING=1")


def test_without_a_manager_nothing_is_opened() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.closing(ServiceManager.of({"WATCHDOG_USEC": "1000000"}, PID)) as manager:
        assert manager.watchdog_s is None
        assert len(os.listdir("/proc/self/fd")) == before
        manager.serving()
        manager.stopping()


@pytest.mark.parametrize(
    ("variables", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(PID)}, 20.0),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(PID + 1)}, None),  # meant for a parent
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_is_named(
    inbox: socket.socket, variables: dict[str, str], watchdog_s: float | None
) -> None:
    with contextlib.closing(ServiceManager.of(environment(inbox, **variables), PID)) as manager:
        assert manager.watchdog_s == watchdog_s


async def test_only_a_loop_that_turns_shows_signs_of_life(inbox: socket.socket) -> None:
    """A thread would report signs of life even while the loop is stuck."""
    watchdog_s = 0.05
    variables = environment(inbox, WATCHDOG_USEC=str(int(watchdog_s * 1e6)))
    with contextlib.closing(ServiceManager.of(variables, os.getpid())) as manager:
        manager.serving()
        assert await next_of(inbox) == b"READY=1\nSTATUS=serving"
        assert [await next_of(inbox) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        inbox.settimeout(4 * watchdog_s)
        with pytest.raises(TimeoutError):
            received_by_a_stuck_loop(inbox)
        assert await next_of(inbox) == b"WATCHDOG=1"


async def next_of(inbox: socket.socket) -> bytes:
    inbox.setblocking(False)
    try:
        async with asyncio.timeout(ARRIVES_WITHIN_S):
            return await asyncio.get_running_loop().sock_recv(inbox, 4096)
    finally:
        inbox.settimeout(ARRIVES_WITHIN_S)


def received_by_a_stuck_loop(inbox: socket.socket) -> None:
    """Block the loop until a datagram comes that was sent meanwhile."""
    inbox.recv(4096)


def test_a_manager_that_does_not_read_holds_nobody_up(inbox: socket.socket) -> None:
    with (
        contextlib.closing(ServiceManager.of(environment(inbox), PID)) as manager,
        structlog.testing.capture_logs() as logs,
    ):
        for _ in range(MORE_THAN_FITS):
            manager.stopping()
            if logs:
                break
    assert [line["event"] for line in logs] == ["service_manager_not_told"]
    assert logs[0]["what"] == "STOPPING=1"
