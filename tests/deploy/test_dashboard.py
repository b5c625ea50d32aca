"""Does every panel of the dashboard show something, with a real Prometheus?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest

from tests.conftest import NewDaemon
from tests.support.daemons import Daemon, wait_until
from tests.support.mixed_load import running_load
from tests.support.prometheus import Prometheus, promtool, require_prometheus, running_prometheus

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/cachesvc.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
# Panels of failures: each shows 0 if nothing failed, and is never empty.
FAILURES = (
    "Failed Gets",
    "Not durable",
    "Origin not asked",
    "Calls that failed",
    "Statuses other than OK",
    "Objects that could not be decoded",
    "Damage and rejections",
)
_METRIC = re.compile(r"cachesvc_[a-z_]+")
_PARTS_OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")
_WITHIN_S = 40.0


def ask(query: str) -> str:
    """Fill in Grafana's variables. Scrapes are 0.25 s apart here."""
    asked = query.replace("$__rate_interval", "30s").replace("$instance", ".+")
    assert "$" not in asked, query
    return asked


def test_panels_have_names_places_and_the_datasource_that_was_chosen() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["legendFormat"]
    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])
    variables = [variable["name"] for variable in DASHBOARD["templating"]["list"]]
    assert variables == ["datasource", "instance"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_panels_ask_only_for_metrics_that_are_documented() -> None:
    documented = set(_METRIC.findall((ROOT / "docs/metrics.md").read_text()))
    asked = {m for query in QUERIES for m in _METRIC.findall(query)}
    assert {_PARTS_OF_HISTOGRAMS.sub("", metric) for metric in asked} <= documented


def test_what_a_panel_says_to_read_is_in_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    named = {name for panel in PANELS for name in re.findall(r"Cachesvc\w+", panel["description"])}
    assert named
    assert all(f"### {name}\n" in runbook for name in named)


# ---- with a real Prometheus


@pytest.fixture
def watched(new_daemon: NewDaemon, tmp_path: Path) -> Iterator[tuple[Daemon, Prometheus]]:
    require_prometheus()
    daemon = new_daemon(L2__FREE_FLOOR_BYTES=str(1 << 20))
    with running_prometheus(tmp_path, f"127.0.0.1:{daemon.http_port}") as prometheus:
        yield daemon, prometheus


def test_failures_are_0_and_not_nothing_on_a_daemon_that_has_done_nothing(
    watched: tuple[Daemon, Prometheus],
) -> None:
    _, prometheus = watched
    panels = [panel for panel in PANELS if panel["title"] in FAILURES]
    assert len(panels) == len(FAILURES)
    for panel in panels:
        for target in panel["targets"]:
            query = ask(target["expr"])
            wait_until(lambda query=query: bool(prometheus.query(query)), _WITHIN_S)
            assert set(prometheus.query(query)) == {0.0}, panel["title"]


def test_every_query_has_data_under_load_and_the_alerts_tell_what_is_so(
    watched: tuple[Daemon, Prometheus],
) -> None:
    daemon, prometheus = watched
    missing = set(QUERIES)

    def all_answered() -> bool:
        for query in list(missing):
            if any(math.isfinite(value) for value in prometheus.query(ask(query))):
                missing.discard(query)
        return not missing

    with running_load(daemon) as load:
        wait_until(all_answered, _WITHIN_S, lambda: f"no data: {missing}")
        load.wait_for_rounds(2)
        ratio = "instance:cachesvc_hits:ratio_rate5m"  # of the shipped rules
        wait_until(lambda: any(0 < value < 1 for value in prometheus.query(ratio)), _WITHIN_S)
        # The load contains undecodable objects on purpose, and no other fault.
        wait_until(lambda: bool(prometheus.alerts("firing")), _WITHIN_S)
        assert prometheus.alerts("firing") == {"CachesvcDecodeFailing"}
    daemon.stop()
    wait_until(lambda: "CachesvcDown" in prometheus.alerts("pending"), _WITHIN_S)


def test_promtool_finds_nothing_wrong_with_the_scrape(daemon: Daemon) -> None:
    require_prometheus()
    assert promtool("check", "metrics", text=daemon.http("/metrics")[1]) == ""
