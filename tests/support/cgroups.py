"""Real cgroups with a limit of memory, if this process may make them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def real_group(limit: int) -> Iterator[Path]:
    """Make a group with a limit, and a group without one inside it."""
    name = f"cachesvc-test-{os.getpid()}"
    for top, file in (
        (Path("/sys/fs/cgroup"), "memory.max"),
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    ):
        outer = top / name
        try:
            (outer / "inner").mkdir(parents=True)
        except OSError:
            continue
        try:
            if (outer / file).exists():
                (outer / file).write_text(str(limit))
                yield outer
                return
        finally:
            (outer / "inner").rmdir()
            outer.rmdir()
    pytest.skip("this process may make no cgroup with a limit of memory")
