"""How is a unit of `deploy/systemd/` read, and what does systemd say of it?"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cachesvc.config import GIB, MIB
from tests.support.debian import why_missing

UNITS = Path(__file__).parents[2] / "deploy/systemd"
_BYTES = {"": 1, "K": 1024, "M": MIB, "G": GIB}
_TIMEOUT_S = 30


def require_systemd(*commands: str) -> None:
    if (reason := why_missing(*commands)) is not None:
        pytest.skip(reason)


def unit_keys(name: str) -> dict[str, list[str]]:
    """Return every value of every key, in order."""
    keys: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


def size_bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]?)", text).groups()  # type: ignore[union-attr]
    return int(number) * _BYTES[unit]


def said_by(*command: str) -> str:
    """Return a command's output. Fails if the command found a fault."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def system_calls(filters: list[str]) -> set[str]:
    """Return the system calls that the lines of `SystemCallFilter=` allow."""
    allowed: set[str] = set()
    for line in filters:
        named = set().union(*(_calls_of(word) for word in line.removeprefix("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed


def _calls_of(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    lines = said_by("systemd-analyze", "syscall-filter", "--no-pager", word).splitlines()
    # The group's name comes first, then its purpose, then its members.
    members = [line.strip() for line in lines[1:] if not line.lstrip().startswith("#")]
    members = [member for member in members if re.fullmatch(r"@?[a-z0-9_-]+", member)]
    return set().union(*(_calls_of(member) for member in members))
