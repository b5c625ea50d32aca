"""Tells the service manager that the daemon serves, stops, and is not stuck.

systemd's sd_notify: datagrams of NAME=value lines to the socket that NOTIFY_SOCKET
names. Reference: sd_notify(3). Times are seconds.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import structlog

from cachesvc.core.clock import NS_PER_S

log = structlog.get_logger()
_NS_PER_US = 1_000


class ServiceManager:
    """Sends notices to systemd, or none if systemd did not ask for them.

    `watchdog_s` is None unless systemd asked this process for signs of life.
    """

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        self.watchdog_s = watchdog_s
        # A leading @ stands for the 0 byte of an abstract socket's name.
        self._address = address.replace("@", "\0", 1) if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            # A manager that does not read must not stop the loop.
            self._socket.setblocking(False)
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str], pid: int) -> ServiceManager:
        """Return the manager that the process's environment names."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls("", None)
        time_us = environment.get("WATCHDOG_USEC", "")
        # Child processes inherit the variables, but systemd does not watch them.
        if not time_us.isdigit() or environment.get("WATCHDOG_PID", str(pid)) != str(pid):
            return cls(address, None)
        return cls(address, int(time_us) * _NS_PER_US / NS_PER_S or None)

    def serving(self) -> None:
        """Tell systemd, and from now on send signs of life if it asked for them."""
        self._tell("READY=1", "STATUS=serving")
        if self.watchdog_s is not None:
            self._watching = asyncio.create_task(self._watch(self.watchdog_s), name="watchdog")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._socket is not None:
            self._socket.close()

    async def _watch(self, watchdog_s: float) -> None:
        # A task, not a thread: the turning event loop is the sign of life.
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(watchdog_s / 2)

    def _tell(self, *lines: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            log.warning("service_manager_not_told", what=lines[0], error=str(exc))
