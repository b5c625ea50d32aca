"""How are servers started for tests so that none outlives them?

Every process dies with the test process (setpriv --pdeathsig), and every port stays reserved as
long as its `ReservedPort` is held.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.forked_daemons import ForkedDaemon

ServerProcess = subprocess.Popen[bytes] | ForkedDaemon

READY_WITHIN_S = 30.0
_POLL_S = 0.02
# A command sets the signal, because Python code between fork and exec (preexec_fn) makes gRPC's
# fork handlers run in the child, which now and then end it: grpc/grpc#43055.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")

# The death signal follows the thread that forked, not its process. So one thread, which lives as
# long as the process, forks all servers.
_FORKING = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")
_RUNNING: set[ServerProcess] = set()


class ReservedPort:
    """A free loopback port that no other process gets until `release`.

    The socket is bound and never listens. Linux lets a server that sets SO_REUSEADDR bind beside
    it, and gives the port to no other process.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def start(
    command: Sequence[str], log: Path | int, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a server in the foreground; its output goes to `log`, a path or a descriptor."""

    def spawn() -> subprocess.Popen[bytes]:
        with open(log, "ab", closefd=isinstance(log, Path)) as output:
            return subprocess.Popen(
                (*_DIE_WITH_PARENT, *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                # A Ctrl-C in the terminal is for pytest, which stops the servers itself.
                start_new_session=True,
            )

    process = _FORKING.submit(spawn).result()
    _RUNNING.add(process)
    return process


def started(process: ForkedDaemon) -> ForkedDaemon:
    """Have `process`, which began in another way, end with the tests too."""
    _RUNNING.add(process)
    return process


def kill(process: ServerProcess) -> None:
    """Send SIGKILL, and wait until the process is gone. Killing it twice is harmless."""
    process.kill()
    process.wait()
    _RUNNING.discard(process)


def wait_until_http_answers(url: str, process: ServerProcess, log: Path) -> None:
    """Return once `url` answers with any status, an error included."""
    give_up = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError as exc:
            exc.close()
            return
        except OSError:
            time.sleep(_POLL_S)
    raise RuntimeError(f"{process.args!r} does not serve {url}:\n{log_tail(log)}")


def log_tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"


@atexit.register
def _kill_all() -> None:
    for process in tuple(_RUNNING):
        kill(process)
