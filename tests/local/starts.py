"""A worker whose children begin in one of the WAYS: `... WAY TARGET TEXT_ID`.

The worker and its child get the text, print its version, wait for a line on their input, and get
the text again. A hang ends with the test's own deadline.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable

from cachesvc_client import CacheClient
from tests.local.versioned import version_of


def _get(client: CacheClient, text: str) -> int:
    """Get twice, over a call and perhaps by a local hit; return the one version of both."""
    first, second = version_of(client.get_text(text)), version_of(client.get_text(text))
    assert first == second
    return second


def _fork_and_do(act: Callable[[], None]) -> int:
    """Fork; the child acts and exits. Return the child's process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    finally:
        os._exit(code)


def _serve(client: CacheClient, text: str, said: Callable[[str], None], go_on: int) -> None:
    said(f"{_get(client, text)}\n")
    os.read(go_on, 1)
    said(f"{_get(client, text)}\n")


def _say(line: str) -> None:
    os.write(1, line.encode())


def _spawned(target: str, text: str, go_on: int) -> None:
    with CacheClient(target) as client:
        _serve(client, text, _say, go_on)


class Busy:
    """Threads that get without a pause, over calls too, so that a fork finds locks held."""

    def __init__(self, client: CacheClient, text: str) -> None:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(client, text)) for _ in range(3)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: CacheClient, text: str) -> None:
        while not self._over.is_set():
            _get(client, text)
            client.stats()


def main(way: str, target: str, text: str) -> int:
    client = CacheClient(target)
    child_goes_on, let_child = os.pipe()
    os.set_inheritable(child_goes_on, True)

    def child() -> None:
        os.close(let_child)  # otherwise the child would keep the pipe open, and never see its end
        _serve(client, text, _say, child_goes_on)

    if way != "fork before the first call":
        _get(client, text)
    if way == "spawn":
        return _with_spawned(client, target, text, let_child)
    if way == "fork among busy threads":
        with Busy(client, text):
            pid = _fork_and_do(child)
    elif way == "fork of a fork":
        pid = _fork_and_do(lambda: _wait_for(_fork_and_do(child)))
    else:
        pid = _fork_and_do(child)
    _serve(client, text, _say, 0)
    os.write(let_child, b"\n")
    _wait_for(pid)
    return 0


def _with_spawned(client: CacheClient, target: str, text: str, let_child: int) -> int:
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_spawned_with, args=(target, text, receiving))
    process.start()
    _serve(client, text, _say, 0)
    sending.send(b"\n")
    process.join()
    return process.exitcode or 0


def _spawned_with(target: str, text: str, receiving: object) -> None:
    _spawned(target, text, receiving.fileno())  # type: ignore[attr-defined]


def _wait_for(pid: int) -> None:
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
