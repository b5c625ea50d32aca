"""Does `stats --watch` show rates that agree with the counters, in 80 columns, and end?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from cachesvc.cli.stats import watch
from cachesvc.cli.stats.watch import next_look
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.cli.conftest import Run
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id, put_in_folder


def answer(started_s: int = 1000, **requests: int) -> pb.StatsResponse:
    made = pb.StatsResponse(version="1.2.3", requests=pb.RequestStats(**requests))
    made.started_at.seconds = started_s
    made.memory.max_bytes = made.disk.max_bytes = 50 << 30
    made.disk.entries, made.disk.size_bytes = 5_200, 43 << 30
    for name in ("human_upper_body", "human_lower_body", "human_dresses", "garment", "text"):
        made.namespaces.add(namespace=name, memory_max_entries=100, disk_bytes=10 << 30)
    return made


def shown(look: watch.Look, width: int) -> list[str]:
    console = Console(width=width, highlight=False, markup=False, record=True, file=None)
    with console.capture() as capture:
        console.print(watch.screen(look, 2.0))
    return capture.get().splitlines()


def test_a_rate_is_the_difference_over_the_time_between_two_answers() -> None:
    first = next_look(answer(memory_hits=100, failed=1), 50.0, None)
    assert first.rates is None
    second = next_look(answer(memory_hits=130, failed=1), 54.0, first)
    assert second.rates is not None
    assert second.rates["memory_hits"] == 7.5
    assert second.rates["failed"] == 0


def test_a_restarted_daemon_has_no_negative_rates() -> None:
    first = next_look(answer(memory_hits=100), 50.0, None)
    assert next_look(answer(started_s=1001, memory_hits=3), 54.0, first).rates is None


def test_the_table_fits_80_columns_and_24_lines_and_cuts_nothing() -> None:
    first = next_look(answer(memory_hits=1_234_567), 50.0, None)
    look = next_look(answer(memory_hits=1_334_567, disk_hits=25_000), 52.0, first)
    lines = shown(look, 80)
    assert max(map(len, lines)) <= 80
    assert len(lines) < 24  # the cursor needs one more line
    text = "\n".join(lines)
    for value in ("1,334,567", "50,000.0", "80.0 %", "20.0 %", "human_upper_body", "46.2 GB"):
        assert value in text
    assert not any(line.strip() in ("0", "%", "B", "GB") for line in lines)  # no cell was folded


def test_each_look_is_one_line_of_json_with_what_happened_since(run: Run, daemon: Daemon) -> None:
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    assert run("get", "human", user).exit_code == 0
    done = run("stats", "--watch", "--json", "--interval", "0.1", "--count", "2")
    assert done.exit_code == 0
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["per_second"] is None
    assert second["per_second"]["origin_fills"] == 0
    assert second["requests"]["origin_fills"] >= 1
    assert second["at"] > first["at"]


def test_the_live_table_shows_the_daemons_namespaces(run: Run) -> None:
    done = run("stats", "--watch", "--count", "1")
    assert done.exit_code == 0
    for word in ("Answered from", "mapped by a worker", "human_dresses", "Per second"):
        assert word in done.stdout


def test_ctrl_c_is_a_good_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    done = run("stats", "--watch", "--json")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 1


def test_an_interval_without_watch_is_wrong_usage(run_alone: Run, tmp_path: Path) -> None:
    refused = run_alone("stats", "--interval", "5", "--target", str(tmp_path / "none.sock"))
    assert refused.exit_code == 2
    assert "--watch" in refused.stderr
