"""One contender in a process of its own, so that none runs in another's heap or threads."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench import workloads
from bench.contender import Contender, Unavailable
from bench.contenders import CONTENDERS
from bench.reading import read_every_byte

# For a run's sockets and files; a name here is shorter than a unix socket's 107 bytes.
TMPFS = Path("/dev/shm")
READ = " + one read of every byte"
_END_DEADLINE_S = 30.0
# torch takes 1-2 s to load: once, in the server that forks all workers.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.worker"])


class WorkerFailed(Exception):
    """A contender could not start, broke, or returned wrong tensors."""


@dataclass(frozen=True)
class _Failure:
    reason: str
    unavailable: bool


def _failure(name: str, exc: Exception) -> _Failure:
    if isinstance(exc, Unavailable):
        return _Failure(str(exc), unavailable=True)
    # A peer that does not start does not stop the others. Wrong tensors do.
    optional = CONTENDERS[name].peer and not isinstance(exc, AssertionError)
    return _Failure(f"{exc!r}" if optional else f"{name}: {exc!r}", unavailable=optional)


class Worker:
    """Drives one contender. Use as a context manager.

    Raises:
        Unavailable: the machine lacks what the contender needs.
        WorkerFailed: it failed.
    """

    def __init__(self, name: str, workload: str) -> None:
        self.name = name
        self._ours, theirs = _context.Pipe()
        self._process = _context.Process(target=_run, args=(name, workload, theirs), name=name)
        self._process.start()
        theirs.close()
        try:
            self.title: str = self._receive()
        except BaseException:
            self.close()
            raise

    def measure(self, warmup: int, calls: int) -> list[int]:
        """Make `warmup` calls, then `calls` more, and return how long these took, in ns."""
        self._ours.send((warmup, calls))
        times: list[int] = self._receive()
        return times

    def _receive(self) -> Any:
        try:
            answer = self._ours.recv()
        except EOFError:
            raise WorkerFailed(f"{self.name}: its process died") from None
        if isinstance(answer, _Failure):
            kind = Unavailable if answer.unavailable else WorkerFailed
            raise kind(answer.reason)
        return answer

    def close(self) -> None:
        """End the process; it stops its servers when the pipe closes."""
        self._ours.close()
        self._process.join(_END_DEADLINE_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _run(name: str, workload: str, pipe: Connection) -> None:
    """The worker's process: set up, check the first answer, then measure on request."""
    torch.set_num_threads(1)  # with two threads, a read would also measure idle cores
    with tempfile.TemporaryDirectory(prefix="cachesvc-bench-", dir=TMPFS) as folder:
        contender: Contender | None = None
        try:
            contender = _load(name)(workloads.build(workload), Path(folder))
            contender.setup()
            contender.check()
            pipe.send(contender.title + (READ if CONTENDERS[name].reads else ""))
            _serve(contender, CONTENDERS[name].reads, pipe)
        except EOFError:
            pass  # the benchmark has closed the pipe
        except Exception as exc:  # noqa: BLE001 - told to the parent, which raises it
            pipe.send(_failure(name, exc))
        finally:
            if contender is not None:
                contender.close()


def _serve(contender: Contender, reads: bool, pipe: Connection) -> None:
    while True:
        warmup, calls = pipe.recv()
        _time_calls(contender, reads, warmup)
        # The garbage of setup and warm-up must not be collected during a timed call.
        gc.collect()
        times = _time_calls(contender, reads, calls)
        contender.finish()
        pipe.send(times)


def _time_calls(contender: Contender, reads: bool, calls: int) -> list[int]:
    """Time each call. Its result is dropped outside the timed span, before the next call."""
    times = []
    for _ in range(calls):
        started = time.perf_counter_ns()
        result = contender.call()
        if reads:
            read_every_byte(result)
        times.append(time.perf_counter_ns() - started)
        del result
    return times


def _load(name: str) -> type[Contender]:
    module, _, attribute = CONTENDERS[name].path.partition(":")
    loaded: type[Contender] = getattr(
        importlib.import_module(f"bench.contenders.{module}"), attribute
    )
    return loaded
