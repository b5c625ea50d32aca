"""A module of the benchmark in a process of its own, which acts for the duration of a `with`.

The process prints "ready". A line of its input begins an action and is answered with "begun", the
next line ends it and is answered with "ended". The process ends with its input.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Acting = Callable[[str], AbstractContextManager[None]]


@contextlib.contextmanager
def running(module: str, *arguments: object) -> Iterator[Acting]:
    """Run `module`; yield a context manager for the action that a word names."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    said_in, said_out = process.stdin, process.stdout

    def say(word: str, answer: str) -> None:
        print(word, file=said_in, flush=True)
        assert said_out.readline() == answer + "\n"

    @contextlib.contextmanager
    def acting(word: str) -> Iterator[None]:
        say(word, "begun")
        try:
            yield
        finally:
            say("end", "ended")

    try:
        assert said_out.readline() == "ready\n"
        yield acting
    finally:
        process.communicate()
