"""Tells systemd's journal the priority of each line.

If the journal itself reads stderr, `<N>` goes before each line; otherwise the journal would take
every line for information, and `journalctl -p warning` would find none. Reference: sd-daemon(3),
and for JOURNAL_STREAM systemd.exec(5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# syslog's numbers.
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
Processor = Callable[[Any, str, Any], Any]


def reads(fd: int, environment: Mapping[str, str]) -> bool:
    """Return whether the journal reads what is written to `fd`.

    Child processes with another stderr inherit the variable, so it names device and inode.
    """
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def prefixed(rendering: Sequence[Processor]) -> Processor:
    """Return a processor that renders a line and puts its priority before it."""

    def render(logger: Any, method: str, line: Any) -> str:
        priority = PRIORITIES.get(line.get("level"), PRIORITIES["info"])
        for processor in rendering:
            line = processor(logger, method, line)
        return f"<{priority}>{line}"

    return render
