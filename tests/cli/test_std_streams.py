"""What does a command do if stdin, stdout or stderr is closed or full, or nobody reads it?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ENDS_WITHIN_S, environment
from tests.support.daemons import ROOT, Daemon
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import fresh_id, person, put_in_folder

# Longer than every buffer, so that the output is written before the end.
LONG = ("config", "--json")
SHORT = ("--version",)


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run `line` in bash; `$C` is the command."""
    return subprocess.run(
        ["bash", "-c", line],
        env={**environment({"ORIGIN__KIND": "directory", "ORIGIN__PATH": "/tmp"}), **COMMAND},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
    )


COMMAND = {"C": f"{sys.executable} -m cachesvc"}


@pytest.mark.parametrize("arguments", [LONG, SHORT])
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
def test_output_that_is_lost_is_no_success(arguments: tuple[str, ...], where: str) -> None:
    ended = shell(f"$C {' '.join(arguments)} {where}")
    assert ended.returncode == 1
    assert ended.stderr.startswith("cachesvc: stdout cannot be written, output is lost: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [LONG, SHORT])
def test_a_reader_that_goes_away_ends_it_quietly(arguments: tuple[str, ...]) -> None:
    ended = shell(f"$C {' '.join(arguments)} | true; echo ${{PIPESTATUS[0]}}")
    assert ended.stdout == "141\n"
    assert ended.stderr == ""


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>/dev/full", "<&- 2>&-"])
def test_a_closed_stdin_or_stderr_changes_no_answer(closed: str) -> None:
    ended = shell(f"$C --version {closed}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("cachesvc ")


def test_an_error_that_cannot_be_shown_keeps_its_code() -> None:
    assert shell("$C config --config /nonexistent 2>/dev/full").returncode == 2
    assert shell("$C config --config /nonexistent 2>&-").returncode == 2


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_the_daemon_serves_without_standard_streams(tmp_path: Path, closed: str) -> None:
    """Promise 2: a library's output to descriptor 2 is never written into a file of ours."""
    daemon, user = (
        Daemon(tmp_path, under=("bash", "-c", f'exec "$@" {closed}', "bash")),
        fresh_id("u"),
    )
    put_in_folder(daemon.origin_dir, person(user))
    try:
        daemon.start()
        assert get_human(daemon.stub(), user).tensors
        # The real stderr has another descriptor now; descriptor 2 is a pipe that is logged.
        for fd in (0, 1):
            leads_to = os.readlink(f"/proc/{daemon.pid}/fd/{fd}")
            assert leads_to in (os.devnull, str(daemon.log))
        assert os.readlink(f"/proc/{daemon.pid}/fd/2").startswith("pipe:")
        assert daemon.stop() == 0
    finally:
        daemon.close()
