"""Does the command line start quickly, and does it explain its exit codes?"""

from __future__ import annotations

import pytest

from cachesvc import __version__
from tests.cli.conftest import Run, RunApart

HEAVY = [
    "aioboto3",
    "aiohttp",
    "asyncio",
    "google.protobuf",
    "grpc",
    "numpy",
    "PIL",
    "pydantic",
    "structlog",
    "torch",
]


def test_help_lists_the_commands_and_the_exit_codes(run_alone: Run) -> None:
    shown = run_alone("--help")
    assert shown.exit_code == 0
    for command in ["serve", "stats", "get", "put", "warm", "invalidate", "inspect", "config"]:
        assert command in shown.stdout
    assert "Exit codes" in shown.stdout


def test_version_is_the_packages(run_alone: Run) -> None:
    assert run_alone("--version").stdout == f"cachesvc {__version__}\n"


def test_help_loads_no_heavy_library(run_apart: RunApart) -> None:
    report = (
        "import atexit, sys\natexit.register(lambda: print("
        f"'loaded:', [m for m in {HEAVY!r} if m in sys.modules]))"
    )
    shown = run_apart("--help", before=report)
    assert shown.returncode == 0
    assert "loaded: []" in shown.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("stats",),
        ("get", "human", "u1"),
        ("inspect", "text", "t1"),
        ("invalidate", "--user", "u1"),
        ("warm", "--user", "u1"),
    ],
)
def test_a_daemon_that_is_away_is_one_line_and_code_4(
    run_alone: Run, command: tuple[str, ...]
) -> None:
    # The call's timeout ends before the client's patience for a restart does.
    away = run_alone(*command, "--target", "/nonexistent/cachesvc.sock", "--timeout", "0.2")
    assert away.exit_code == 4
    assert away.stderr.count("\n") == 1
    assert away.stderr.startswith("cachesvc: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-command",),
        ("get", "human"),
        ("get", "human", "u1", "--category", "shoes"),
        ("get", "human", "u1", "--origin-after", "2026-01-01T00:00:00"),
        ("put", "text", "t1", "t.npy", "--ttl", "0s"),
        ("put", "text", "t1", "t.npy", "--ttl", "soon"),
        ("put", "text", "t1", "t.npy", "--as-of", "yesterday"),
        ("invalidate",),
        ("invalidate", "--user", "u1", "--clothing", "g1"),
        ("invalidate", "--key", "garment"),
        ("warm",),
    ],
)
def test_wrong_usage_is_code_2(run_alone: Run, arguments: tuple[str, ...]) -> None:
    refused = run_alone(*arguments)
    assert refused.exit_code == 2
    assert refused.stderr
