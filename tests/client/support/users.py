"""How does a test act as another user? In a process of its own, which becomes that user."""

from __future__ import annotations

import importlib
import os
import pkgutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import grpc
import pytest

from cachesvc_client import CacheClient, CacheServiceError, _door
from tests.client.support.scripted_server import ScriptedServer
from tests.support.forked_daemons import FORKING

# No account has these numbers, so messages show the numbers.
STRANGER, NEIGHBOUR = 61_812, 61_813
WITHIN_S = 30
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def become(uid: int, *groups: int) -> None:
    """Give up root and its groups for good."""
    # The user may not be able to read this checkout, for example in root's home: import now what
    # grpc and the client import late.
    late = [found.name for found in pkgutil.iter_modules(grpc.__path__, "grpc.")]
    for name in (*late, "ssl", "cachesvc_client._probe"):
        importlib.import_module(name)
    os.setgroups(groups)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def stats_of(socket: Path, daemon_user: int | None = None, wait_s: float = 600) -> str:
    """Return a client's number of puts as text, or the reason of its error."""
    with CacheClient(str(socket), daemon_user=daemon_user, wait_s=wait_s) as client:
        try:
            return f"{client.stats().puts} puts"
        except CacheServiceError as error:
            return error.reason


def message_of(socket: Path, wait_s: float = 600, being_made_s: float = 0.0) -> str:
    """Return the reason and the message of a client's error, or `served`."""
    _door.BEING_MADE_S = being_made_s
    with CacheClient(str(socket), wait_s=wait_s) as client:
        try:
            client.stats()
        except CacheServiceError as error:
            return f"{error.reason} {error.message}"
    return "served"


def as_user(
    uid: int, act: Callable[..., Any], *arguments: Any, groups: tuple[int, ...] = ()
) -> Any:
    """Return what `act` returns in a process of the user `uid`. A failure there is raised here."""
    ours, theirs = FORKING.Pipe()
    process = FORKING.Process(target=_act, args=(theirs, uid, groups, act, arguments))
    process.start()
    theirs.close()
    try:
        assert ours.poll(WITHIN_S), "the other user's process did not end"
        result, failure = ours.recv()
    finally:
        process.kill()
        process.join()
    if failure:
        raise AssertionError(failure)
    return result


@contextmanager
def served_by(uid: int, socket: Path) -> Iterator[Callable[[], list[str]]]:
    """Serve at `socket` as the user `uid`; yield a function that returns the calls so far."""
    ours, theirs = FORKING.Pipe()
    process = FORKING.Process(target=_serve, args=(theirs, uid, socket))
    process.start()
    theirs.close()

    def calls() -> list[str]:
        ours.send("calls")
        return list(_received(ours))

    try:
        assert _received(ours) == "serving"
        yield calls
    finally:
        process.kill()
        process.join()


def _received(pipe: Connection) -> Any:
    assert pipe.poll(WITHIN_S), "the other user's process is silent"
    return pipe.recv()


def _act(
    pipe: Connection, uid: int, groups: tuple[int, ...], act: Callable[..., Any], arguments: Any
) -> None:
    try:
        become(uid, *groups)
        pipe.send((act(*arguments), ""))
    except Exception:  # noqa: BLE001 - the test shows any failure
        pipe.send((None, traceback.format_exc()))


def _serve(pipe: Connection, uid: int, socket: Path) -> None:
    become(uid)
    with ScriptedServer(socket) as server:
        pipe.send("serving")
        while pipe.recv():
            pipe.send(server.calls)
