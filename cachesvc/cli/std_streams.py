"""Standard streams that may be closed or full, or without a reader.

Lost output is never success. By default Python prints nothing if stdout is closed, and ends with a
traceback if its disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_FAILED = 1
# A shell's exit code for a command that SIGPIPE ended, as `| head` ends other tools.
READER_GONE = 128 + 13


class OutputLost(Exception):
    """stdout did not take all output. Not an OSError: commands catch those of their files."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)
        self.is_reader_gone = cause.errno == errno.EPIPE


class _Stdout(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as exc:
            raise OutputLost(exc) from exc


class _Stderr(io.FileIO):
    """Loses messages that cannot be written; the exit code still says how the command ended."""

    def write(self, data: Any) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(data)


def prepare() -> None:
    """Make the standard streams safe. Call it before any file is opened.

    Otherwise a file opened while descriptor 2 is closed becomes descriptor 2, and libraries write
    their messages into it.
    """
    for fd, mode in ((_STDIN, os.O_WRONLY), (_STDOUT, os.O_RDONLY), (_STDERR, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            # The wrong mode for stdin and stdout: using them then raises an error.
            opened = os.open(os.devnull, mode)
            assert opened == fd, "the lowest free number"
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(_STDIN, closefd=False))
    sys.stdout = _text(_Stdout(_STDOUT, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Stderr(_STDERR, "w", closefd=False), sys.stderr, is_stderr=True)


def _text(raw: io.FileIO, like: Any, *, is_stderr: bool = False) -> io.TextIOWrapper:
    is_line_buffered = is_stderr or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(like, "encoding", None),
        errors="backslashreplace" if is_stderr else getattr(like, "errors", None),
        line_buffering=is_line_buffered,
        write_through=getattr(like, "write_through", False),
    )


def code_of(command: Callable[[], None]) -> int:
    """Run `command`, which ends by SystemExit, and return the exit code.

    The code is not 0 if output is lost.
    """
    try:
        code = _ended(command)
        sys.stdout.flush()
    except OutputLost as exc:
        _discard_the_rest()
        if exc.is_reader_gone:
            return READER_GONE
        print(f"cachesvc: stdout cannot be written, output is lost: {exc}", file=sys.stderr)
        return _FAILED
    return code


def _ended(command: Callable[[], None]) -> int:
    try:
        command()
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        print(exc.code, file=sys.stderr)
        return _FAILED
    return 0


def _discard_the_rest() -> None:
    """Let the interpreter's last flush succeed: it would warn and exit with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
