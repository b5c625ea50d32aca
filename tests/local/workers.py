"""How does a test run client code in another process, step by step?

A worker is a process of its own with one `CacheClient`. It is forked from a process without threads
and without clients, never from the test's own, and ends as an interpreter does. A test sends it
functions of `tests.local.steps` by reference, and receives their results.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from cachesvc_client import CacheClient, LocalOptions
from cachesvc_client.entry import Entry
from tests.support.forked_daemons import FORKING, end_after

P = ParamSpec("P")
R = TypeVar("R")
ANSWERS_WITHIN_S = 50.0


@dataclass
class Held:
    """A worker's client, and the entries that it keeps under names chosen by the test."""

    client: CacheClient
    entries: dict[str, Entry] = field(default_factory=dict)


class WorkerFailed(AssertionError):
    """A step raised; the text is the worker's traceback."""


class Worker:
    """One client process. It ends with `close`, with `kill`, or with the test process."""

    def __init__(
        self, target: str, environment: Mapping[str, str], client: Mapping[str, Any]
    ) -> None:
        self._pipe, theirs = FORKING.Pipe()
        self._process = FORKING.Process(
            target=_begin, args=(theirs, target, dict(environment), dict(client)), daemon=True
        )
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def do(self, step: Callable[Concatenate[Held, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `step(held, ...)` in the worker and return its result. Raises WorkerFailed."""
        self.begin(step, *args, **kwargs)
        result: R = self.result()
        return result

    def begin(
        self, step: Callable[Concatenate[Held, P], Any], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Start a step without waiting for its result."""
        self._pipe.send((step, args, kwargs))

    def result(self) -> Any:
        """Wait for the result of the started step. Raises WorkerFailed."""
        if not self._pipe.poll(ANSWERS_WITHIN_S):
            raise WorkerFailed(f"no answer within {ANSWERS_WITHIN_S:g} s")
        try:
            result, failure = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise WorkerFailed(f"the worker died: {self._process.exitcode}") from None
        if failure:
            raise WorkerFailed(failure)
        return result

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the worker with SIGKILL; killing it twice is harmless."""
        self._process.kill()
        self._process.join()

    def close(self) -> int | None:
        """Let the worker end normally, and return its exit code."""
        self._pipe.close()
        self._process.join(ANSWERS_WITHIN_S)
        self.kill()
        return self._process.exitcode


def _begin(
    pipe: Connection, target: str, environment: dict[str, str], client: dict[str, Any]
) -> None:
    end_after(lambda: _serve(pipe, target, environment, client))


def _serve(
    pipe: Connection, target: str, environment: dict[str, str], client: dict[str, Any]
) -> None:
    os.environ.update(environment)
    options = client.pop("local", {})
    held = Held(CacheClient(target, local=LocalOptions(**options), **client))
    while True:
        try:
            step, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((step(held, *args, **kwargs), ""))
        except Exception:  # noqa: BLE001 - the test shows any error of a step
            pipe.send((None, traceback.format_exc()))
