"""How is a system call of a running process made to fail, hang or kill? By strace, from outside."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.debian import why_missing

# Calls that wait for events, and concern no file.
_NOISE = {"epoll_wait", "epoll_pwait", "epoll_ctl", "poll", "ppoll", "select", "pselect6"}
_CALL = re.compile(r"^(?:(\d+) +)?([a-z_0-9]+)\(")
_ENDS_WITHIN_S = 20.0


class Call(NamedTuple):
    """The `number`-th (from 1) system call of a name, in one thread of a process."""

    thread: str
    name: str
    number: int


def why_not_available() -> str | None:
    """Return why strace cannot be used here, or None."""
    if reason := why_missing("strace"):
        return reason
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], check=False)
    return "strace is not allowed to trace here" if tried.returncode else None


@contextlib.contextmanager
def counted_calls(threads: Mapping[str, int], log: Path) -> Iterator[Counter[tuple[str, str]]]:
    """Count the calls of these threads (name: id) that concern files, until the `with` ends.

    The counter, by thread and call, is filled then; the process must have ended.
    """
    found: Counter[tuple[str, str]] = Counter()
    tracer = _attach(threads.values(), "-o", str(log), "-e", "trace=%file,%desc")
    try:
        yield found
    finally:
        _end(tracer)
    names = {tid: name for name, tid in threads.items()}
    for line in log.read_text().splitlines():
        if (match := _CALL.match(line)) and match[2] not in _NOISE:
            tid = int(match[1]) if match[1] else next(iter(names))
            found[names[tid], match[2]] += 1


@contextlib.contextmanager
def injected(tid: int, name: str, fault: str, when: str) -> Iterator[None]:
    """Inject a `fault` into call `name` of one thread, written as for strace, such as
    `error=EIO`.
    """
    tracer = _attach(
        [tid], "-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={name}:{fault}:when={when}"
    )
    try:
        yield
    finally:
        _end(tracer)


@contextlib.contextmanager
def slow_syncs(pid: int, delay_s: float) -> Iterator[None]:
    """Make each sync of a file, in every thread of a process, take that much longer."""
    fault = f"inject=fsync,fdatasync:delay_enter={int(delay_s * 1e6)}"
    tracer = _attach([pid], "-f", "-o", os.devnull, "-e", "trace=fsync,fdatasync", "-e", fault)
    try:
        yield
    finally:
        _end(tracer)


def _attach(tids: Iterable[int], *options: str) -> subprocess.Popen[str]:
    """Return once strace is attached to each of the threads, and to no others."""
    tids = list(tids)
    command = ["strace", *options, *(word for tid in tids for word in ("-p", str(tid)))]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    for _ in tids:
        line = tracer.stderr.readline()
        if "attached" not in line:
            tracer.kill()
            tracer.communicate()
            raise OSError(f"strace: {line}")
    return tracer


def _end(tracer: subprocess.Popen[str]) -> None:
    """Wait for strace, which ends with the process; detach it if the process lives on."""
    tracer.terminate()
    tracer.communicate(timeout=_ENDS_WITHIN_S)
