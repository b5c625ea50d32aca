"""Promise 9: does each signal that can reach the daemon do what operating.md's table says?"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cachesvc.edge.signals import DECISIONS, Decision, name_of
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.conftest import NewDaemon
from tests.support.daemons import ROOT, Daemon, running_daemon, wait_until
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import fresh_id, person, put_in_folder
from tests.support.secured import Credentials, secured_daemon

WITHIN_S = 20.0
SURVIVED = [
    number
    for number, decision in DECISIONS.items()
    if decision in (Decision.IGNORED, Decision.NOTED, Decision.RELOAD)
]
DRAINS = [number for number, decision in DECISIONS.items() if decision is Decision.DRAIN]
ENDS = [number for number, decision in DECISIONS.items() if decision is Decision.ENDS]


def lines_of(daemon: Daemon) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.log_text().splitlines()]


def events_of(daemon: Daemon) -> list[str]:
    return [line["event"] for line in lines_of(daemon)]


@pytest.fixture(scope="module")
def survivor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One daemon, which gets every harmless signal."""
    with running_daemon(tmp_path_factory.mktemp("survivor")) as daemon:
        yield daemon


def test_every_signal_has_a_decision() -> None:
    assert DECISIONS.keys() == {int(number) for number in signal.valid_signals()}


def test_the_table_of_the_documents_says_the_same() -> None:
    text = (ROOT / "docs/operating.md").read_text()
    section = text.partition("## Signals\n")[2].partition("\n## ")[0]
    documented: dict[int, set[str]] = {}
    for row in re.findall(r"^\| (`SIG.*?) \|", section, re.MULTILINE):
        names = re.sub(r"`SIGRTMIN` to `SIGRTMAX`", "`RT`", row)
        for name in re.findall(r"`(\w+)`", names):
            numbers = (
                range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
                if name == "RT"
                else (int(getattr(signal, name)),)
            )
            for number in numbers:
                documented.setdefault(number, set()).add(row)
    assert documented.keys() == DECISIONS.keys()
    assert all(len(rows) == 1 for rows in documented.values())
    by_row = {next(iter(documented[number])): decision for number, decision in DECISIONS.items()}
    assert all(by_row[next(iter(documented[n]))] is d for n, d in DECISIONS.items())
    assert len(by_row) == len(Decision)


@pytest.mark.parametrize("number", SURVIVED, ids=name_of)
def test_a_signal_that_means_nothing_or_a_reload_does_not_end_it(
    survivor: Daemon, number: int
) -> None:
    os.kill(survivor.pid, number)
    os.kill(survivor.pid, number)
    assert survivor.http("/readyz")[0] == 200
    if DECISIONS[number] is Decision.NOTED:
        name = name_of(number)
        wait_until(lambda: f'"signal": "{name}"' in survivor.log_text(), WITHIN_S)
        assert survivor.log_text().count(f'"signal": "{name}"') == 1
    if DECISIONS[number] is Decision.RELOAD:
        wait_until(lambda: "reload" in events_of(survivor), WITHIN_S)
    assert psutil.Process(survivor.pid).status() != psutil.STATUS_STOPPED


@pytest.mark.parametrize("number", DRAINS, ids=name_of)
def test_a_signal_that_ends_it_drains_it_first(new_daemon: NewDaemon, number: int) -> None:
    daemon, user = new_daemon(is_forked=False), fresh_id("u")
    put_in_folder(daemon.origin_dir, person(user))
    get_human(daemon.stub(), user)
    assert daemon.l1_bytes() > 0
    os.kill(daemon.pid, number)
    # Twice: a wrapper forwards a signal that the whole process group got already.
    os.kill(daemon.pid, number)
    assert daemon.wait() == 0
    assert daemon.l1_bytes() == 0
    draining = next(line for line in lines_of(daemon) if line["event"] == "draining")
    assert draining["signal"] == name_of(number)
    assert events_of(daemon)[-1] == "stopped"


@pytest.mark.parametrize("number", ENDS, ids=name_of)
def test_a_signal_that_reports_a_defect_ends_it_at_once(new_daemon: NewDaemon, number: int) -> None:
    daemon = new_daemon(is_forked=False)
    os.kill(daemon.pid, number)
    assert daemon.wait() == -number
    assert "draining" not in events_of_json(daemon)


def events_of_json(daemon: Daemon) -> list[str]:
    """Return the events; a crash adds lines that are not JSON."""
    lines = (line for line in daemon.log_text().splitlines() if line.startswith("{"))
    return [json.loads(line)["event"] for line in lines]


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP], ids=name_of)
def test_a_stop_lasts_until_it_is_continued(survivor: Daemon, number: int) -> None:
    process = psutil.Process(survivor.pid)
    os.kill(survivor.pid, number)
    if number == signal.SIGSTOP:  # the kernel drops SIGTSTP in an orphaned process group
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, WITHIN_S)
    os.kill(survivor.pid, signal.SIGCONT)
    assert survivor.http("/readyz")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM], ids=name_of)
def test_a_signal_during_the_start_and_during_the_drain_changes_neither(
    tmp_path: Path, number: int
) -> None:
    daemon = Daemon(tmp_path)
    try:
        process = daemon.spawn()
        # From the moment when /proc shows its handler until the daemon has ended.
        wait_until(lambda: _is_caught(process.pid, number), WITHIN_S)
        while not events_of(daemon):
            os.kill(process.pid, number)
        os.kill(process.pid, signal.SIGTERM)
        while process.poll() is None:
            process.send_signal(number)
        assert process.returncode == 0
        assert events_of(daemon)[-1] == "stopped"
    finally:
        daemon.close()


def _is_caught(pid: int, number: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^SigCgt:\s*(\w+)$", status, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def test_sigterm_before_it_has_begun_ends_it_with_0(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    try:
        process = daemon.spawn()
        wait_until(lambda: _is_caught(process.pid, signal.SIGTERM), WITHIN_S)
        process.terminate()
        assert process.wait(WITHIN_S) == 0
        assert "Traceback" not in daemon.log_text()
    finally:
        daemon.close()


def test_what_a_background_shell_ignores_stays_ignored(tmp_path: Path) -> None:
    """Ctrl-C in a script's terminal must not end the daemon that the script started with `&`."""
    ignore = "import os, signal, sys\n" + "".join(
        f"signal.signal(signal.{name}, signal.SIG_IGN)\n"
        for name in ("SIGINT", "SIGQUIT", "SIGHUP")
    )
    become = "os.execv(sys.argv[1], sys.argv[1:])"
    daemon = Daemon(tmp_path, under=(sys.executable, "-c", ignore + become))
    try:
        daemon.start()
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            os.kill(daemon.pid, number)
        # nohup ignores SIGHUP too. A reload does no harm, and an operator may have asked for it.
        wait_until(lambda: "reload" in events_of(daemon), WITHIN_S)
        assert daemon.http("/readyz")[0] == 200
        assert daemon.stop() == 0
    finally:
        daemon.close()


def test_a_reload_says_of_each_part_what_became_of_it(tmp_path: Path) -> None:
    """Promise 10: certificates, grants, and the log level of the config file."""
    credentials = Credentials(tmp_path)
    credentials.know(tokens=[{"name": "o", "token": "token-of-observer", "roles": ["observer"]}])
    config = tmp_path / "cachesvc.toml"
    config.write_text('log_level = "info"\n')
    with secured_daemon(
        tmp_path,
        credentials,
        demand_certificates=False,
        arguments=("--config", str(config)),
    ) as (daemon, _):
        assert reload(daemon)["parts"] == {
            "access.file": "unchanged",
            "grpc.tls": "unchanged",
            "log_level": "unchanged",
        }

        config.write_text('log_level = "debug"\n[l1]\nrewarm = true\n[grpc]\ndrain_s = 3\n')
        credentials.renew_server()
        said = reload(daemon)
        assert said["parts"]["grpc.tls"] == "reloaded"
        assert said["parts"]["log_level"] == "info -> debug"
        assert said["needs_restart"] == ["grpc.drain_s"]  # its variable overrides l1.rewarm
        assert said["level"] == "warning"
        daemon.stub().Stats(pb.StatsRequest(), timeout=WITHIN_S)
        wait_until(lambda: "call" in events_of(daemon), WITHIN_S)

        config.write_text("nonsense = [")
        credentials.access_file.write_text("nonsense")
        for _ in range(2):  # a part that failed is tried again
            said = reload(daemon)
            assert said["parts"]["settings"].startswith("failed: ")
            assert said["parts"]["access.file"].startswith("failed: ")
            assert said["parts"]["grpc.tls"] == "unchanged"

        config.write_text('log_level = "info"\n')
        credentials.know()
        said = reload(daemon)
        assert said["parts"]["access.file"] == "reloaded"
        assert said["parts"]["log_level"] == "debug -> info"
        assert said["needs_restart"] == []
        assert said["level"] == "info"


def reload(daemon: Daemon) -> dict[str, Any]:
    """Reload by SIGHUP, and return the reload's log line."""
    before = events_of(daemon).count("reload")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: events_of(daemon).count("reload") > before, WITHIN_S)
    return [line for line in lines_of(daemon) if line["event"] == "reload"][-1]
