"""How do the tests run a command? In process, against the session's real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cachesvc.cli.main import app
from tests.support.daemons import ROOT, Daemon

Run = Callable[..., Result]
RunApart = Callable[..., subprocess.CompletedProcess[str]]
ENDS_WITHIN_S = 30


@pytest.fixture
def run_alone(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in process, without the caller's settings."""
    for name in [name for name in os.environ if name.startswith("CACHESVC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments, **options: CliRunner().invoke(app, arguments, **options)


def on_daemon(run_alone: Run, daemon: Daemon) -> Run:
    """Return `run_alone` for commands that talk to `daemon`."""
    return lambda *arguments, **options: run_alone(
        *arguments, "--target", str(daemon.socket), **options
    )


@pytest.fixture
def run(run_alone: Run, daemon: Daemon) -> Run:
    """Run a command that talks to the session's daemon."""
    return on_daemon(run_alone, daemon)


@pytest.fixture
def run_apart() -> RunApart:
    """Run a command in a process of its own, which executes the Python of `before` first."""

    def run_it(
        *arguments: str, before: str = "", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        code = f"{before}\nfrom cachesvc.cli.main import main\nmain()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN_S,
        )

    return run_it


def environment(settings: dict[str, str]) -> dict[str, str]:
    """Return a process's variables: ours, but with `settings` in place of our settings."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("CACHESVC_")}
    paths = f"{ROOT}{os.pathsep}{ROOT / 'client'}"
    return {
        **kept,
        "PYTHONPATH": paths,
        **{f"CACHESVC_{name}": value for name, value in settings.items()},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"
