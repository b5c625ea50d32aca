"""A host whose settings are all right; each test spoils one of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc.cli.doctor.findings import Check, Finding, Level, Patient
from cachesvc.config import Settings

Examine = Callable[..., Finding]


@pytest.fixture
def runtime_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as path:
        Path(path).chmod(0o750)
        yield Path(path)


@pytest.fixture
def settings(tmp_path: Path, runtime_dir: Path) -> dict[str, Any]:
    """Settings as nested values; a test changes those that it checks."""
    origin = tmp_path / "origin"
    origin.mkdir(exist_ok=True)
    return {
        "runtime_dir": runtime_dir,
        "state_dir": tmp_path / "state",
        "l1": {"max_bytes": 1 << 20},
        "l2": {"root": tmp_path / "l2", "max_bytes": 1 << 20, "free_floor_bytes": 0},
        "http": {"listen": ""},
        "origin": {"kind": "directory", "path": origin},
    }


@pytest.fixture
def filesystem(tmp_path: Path) -> Path:
    """The host's own files, as the test sets them."""
    root = tmp_path / "host"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    return root


@pytest.fixture
def examine(settings: dict[str, Any], filesystem: Path) -> Examine:
    """Run one check and return its one finding."""

    def run(check: Check, **of_the_patient: Any) -> Finding:
        of_the_patient.setdefault("filesystem", filesystem)
        (found,) = check(Patient(Settings(**settings), **of_the_patient))
        # Every finding that is not OK says how to fix it.
        assert bool(found.fix) == (found.level is not Level.OK)
        return found

    return run
