"""Does `cachesvc stats` say what the daemon holds and did?"""

from __future__ import annotations

import json

from tests.cli.conftest import Run
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id, put_in_folder


def test_stats_counts_as_numbers(run: Run, daemon: Daemon) -> None:
    before = json.loads(run("stats", "--json").stdout)
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    assert run("get", "human", user).exit_code == 0
    after = json.loads(run("stats", "--json").stdout)
    assert after["requests"]["origin_fills"] == before["requests"]["origin_fills"] + 1
    assert {n["namespace"] for n in after["namespaces"]} >= {"human_upper_body", "garment", "text"}


def test_stats_for_people_shows_tiers_and_namespaces(run: Run) -> None:
    shown = run("stats").stdout
    for word in ("memory", "disk", "origin", "human_upper_body", "coalesced waiters"):
        assert word in shown
