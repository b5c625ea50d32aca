"""The input and the result of a check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cachesvc.config import Settings


class Level(StrEnum):
    """`error`: the daemon will not work, or not as promised. `warning`: it may be intended."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """`message` says what was found and what it means, `fix` what to do about it."""

    check: str
    level: Level
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined: the settings, on this host, as this user.

    `object_key` is an object that the origin should have. `filesystem` is the root of the host's
    files; tests pass another.
    """

    settings: Settings
    object_key: str = ""
    deadline_s: float = 10.0
    filesystem: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)


Check = Callable[[Patient], Iterator[Finding]]


def ok(check: str, message: str) -> Finding:
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check, Level.WARNING, message, fix)


def error(check: str, message: str, fix: str) -> Finding:
    return Finding(check, Level.ERROR, message, fix)
