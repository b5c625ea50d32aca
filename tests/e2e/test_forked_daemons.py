"""Is a forked daemon the command's equal, and does it begin with its libraries imported?"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.support.daemons import Daemon
from tests.support.forked_daemons import FORKING

WITHIN_S = 20.0


def send_modules(pipe: Connection) -> None:
    pipe.send(set(sys.modules))


def test_a_fork_begins_with_what_daemons_and_workers_import() -> None:
    """A name that is not found when the forking process begins would only make forks slow."""
    ours, theirs = FORKING.Pipe()
    process = FORKING.Process(target=send_modules, args=(theirs,))
    process.start()
    assert ours.poll(WITHIN_S)
    modules = ours.recv()
    process.join()
    assert modules > {"cachesvc.process", "cachesvc.cli.serve.logs", "tests.local.steps"}
    assert not modules & {"torch", "rich"}


@pytest.mark.parametrize("is_forked", [True, False])
def test_a_setting_that_cannot_be_used_is_code_2_and_a_line_in_the_log(
    tmp_path: Path, is_forked: bool
) -> None:
    daemon = Daemon(tmp_path, {"L1__MAX_BYTES": "many"}, is_forked=is_forked)
    try:
        assert daemon.start_in_vain() == 2
        assert "CACHESVC_L1__MAX_BYTES" in daemon.log_text()
    finally:
        daemon.close()


@pytest.mark.parametrize("is_forked", [True, False])
def test_a_daemon_that_is_told_to_end_is_code_0_and_one_that_is_killed_is_not(
    tmp_path: Path, is_forked: bool
) -> None:
    daemon = Daemon(tmp_path, is_forked=is_forked)
    try:
        daemon.start()
        assert daemon.stop() == 0
        process = daemon.spawn()
        process.kill()
        assert process.wait(WITHIN_S) == -9
    finally:
        daemon.close()
