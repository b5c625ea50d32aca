"""The exit codes of commands, and the message of a command that fails."""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import Any, NoReturn

PROGRAM = "cachesvc"
# For the command line and each command: no rich tracebacks, -h beside --help.
HOW_COMMANDS_BEHAVE: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class ExitCode(IntEnum):
    """Scripts match on these; 0 is success."""

    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    AWAY = 4


MEANINGS = (
    "Exit codes: 0 done; 1 failed, the message says why; 2 wrong usage or settings; "
    "3 neither the cache nor the origin has the entry; 4 no daemon answered in time."
)


def fail(message: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Print one line on stderr and end the command with `code`."""
    print(f"cachesvc: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(int(code))


def warn(message: str) -> None:
    """Print one line on stderr; the command goes on."""
    print(f"{PROGRAM}: warning: {' '.join(message.split())}", file=sys.stderr)
