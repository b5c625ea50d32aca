"""Does `cachesvc doctor` show and count every finding, and end with the right code?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cachesvc.cli.doctor import checks
from tests.cli.conftest import Run
from tests.support.daemons import Daemon


@pytest.fixture
def beside_daemon(run_alone: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with the settings of the session's daemon."""
    for name, value in daemon.settings.items():
        monkeypatch.setenv(f"CACHESVC_{name}", value)
    return run_alone


def test_a_host_that_runs_a_daemon_has_no_error(beside_daemon: Run) -> None:
    done = beside_daemon("doctor", "--json")
    assert done.exit_code == 0, done.stdout
    shown = json.loads(done.stdout)
    assert shown["errors"] == 0
    found = {finding["check"] for finding in shown["findings"]}
    for check in ("daemon", "runtime.space", "l2.mount", "origin.access", "http.port", "group"):
        assert check in found


def test_an_error_is_code_1_and_its_fix_is_beside_it(
    beside_daemon: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_GROUP", "no-such-group-here")
    done = beside_daemon("doctor")
    assert done.exit_code == 1
    assert "groupadd" in done.stdout
    assert done.stderr.startswith("cachesvc: errors: 1, ")


def test_a_check_that_cannot_look_does_not_stop_the_others(
    beside_daemon: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(_: object):  # type: ignore[no-untyped-def]
        raise PermissionError(13, "Permission denied", "/proc/meminfo")
        yield

    monkeypatch.setattr(checks, "CHECKS", (cannot, *checks.CHECKS))
    shown = json.loads(beside_daemon("doctor", "--json").stdout)
    assert "/proc/meminfo: Permission denied" in shown["findings"][0]["message"]
    assert len(shown["findings"]) > len(checks.CHECKS) / 2


def test_settings_that_cannot_work_are_code_2(run_alone: Run, tmp_path: Path) -> None:
    assert run_alone("doctor", "--config", str(tmp_path / "none.toml")).exit_code == 2
