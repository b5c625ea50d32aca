"""Reads the whole corpus with every parser, and prints what else that made the process do.

    python -m tests.fuzz.read_all [--naive]

It is a process of its own, because an audit hook stays for good. `--naive` reads the pickles as the
original did, to show that the hook sees what they try.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import sys
from collections import Counter
from collections.abc import Callable

from tests.fuzz.parser import CORPUS
from tests.fuzz.parsers import PARSERS

# The events of code that runs: https://docs.python.org/3/library/audit_events.html
FORBIDDEN = (
    "code.__new__",
    "compile",
    "ctypes.",
    "exec",
    "ftplib.",
    "function.__new__",
    "import",
    "marshal.",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.system",
    "pickle.find_class",
    "pty.spawn",
    "shutil.",
    "socket.",
    "subprocess.",
    "urllib.",
    "webbrowser.",
)
# Attacks that do not need torch, whose import takes seconds.
PLAIN_ATTACKS = "code-[eo]*-by-*"


def main(naive: bool) -> None:
    readers: list[Callable[[bytes], object]]
    readers = [_naively] if naive else [parser.attempt for parser in PARSERS.values()]
    paths = sorted(CORPUS.rglob(PLAIN_ATTACKS if naive else "*"))
    inputs = [path.read_bytes() for path in paths if path.is_file()]
    seen: Counter[str] = Counter()
    is_watched = False

    def watch(event: str, _: tuple[object, ...]) -> None:
        if is_watched and event.startswith(FORBIDDEN):
            seen[event] += 1

    # Once without the hook: the first good input of a kind may import a module of Pillow.
    if not naive:
        _read(readers, inputs)
    sys.addaudithook(watch)
    is_watched = True
    _read(readers, inputs)
    is_watched = False
    print(json.dumps({"inputs": len(inputs), "reads": len(inputs) * len(readers), "did": seen}))


def _read(readers: list[Callable[[bytes], object]], inputs: list[bytes]) -> None:
    for reader in readers:
        for data in inputs:
            reader(data)


def _naively(data: bytes) -> None:
    with contextlib.suppress(Exception):
        pickle.loads(data)


if __name__ == "__main__":
    main("--naive" in sys.argv[1:])
