"""Does every alert fire when it should, stay quiet otherwise, and link to the runbook?"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.prometheus import RULES, promtool, require_prometheus

ROOT = Path(__file__).parents[2]
_METRIC = re.compile(r"(?<![\w:])cachesvc_[a-z_]+")
_PARTS_OF_HISTOGRAMS = re.compile(r"_(bucket|sum|count)$")


@cache
def load(name: str) -> Any:
    return yaml.safe_load((RULES / name).read_text())


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in load(name)["groups"] for rule in group["rules"]]


ALERTS = rules("cachesvc.alerts.yml")
by_name = pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])


def test_prometheus_accepts_the_configuration_and_its_rules() -> None:
    require_prometheus()
    said = promtool("check", "config", RULES / "prometheus.yml")
    assert f"{len(ALERTS)} rules found" in said


def test_the_alerts_do_as_their_own_tests_say() -> None:
    require_prometheus()
    assert "SUCCESS" in promtool("test", "rules", RULES / "tests/alerts.test.yml")


@by_name
def test_an_alert_is_tested_both_ways(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    cases = [
        case["exp_alerts"]
        for group in load("tests/alerts.test.yml")["tests"]
        for case in group["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert any(cases), "no test in which it fires"
    assert not all(cases), "no test in which it stays quiet"


@by_name
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    notes = alert["annotations"]
    assert "{{ $labels.instance }}" in notes["summary"]
    assert notes["action"]
    assert notes["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_every_alert_and_no_other_has_its_section_in_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    sections = re.split(r"^### (Cachesvc\w+)$", runbook, flags=re.MULTILINE)
    written = dict(zip(sections[1::2], sections[2::2], strict=True))
    assert sorted(written) == sorted(alert["alert"] for alert in ALERTS)
    for name, text in written.items():
        for part in ("**Means.**", "**Look.**", "**Do.**", "**Wake somebody.**"):
            assert part in text, (name, part)


def test_the_runbook_says_which_alerts_are_critical() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    listed = re.search(
        r"These\s+are\s+`critical`, (.*?)\. The\s+others\s+are `warning`", runbook, re.DOTALL
    )
    assert listed
    critical = {a["alert"] for a in ALERTS if a["labels"]["severity"] == "critical"}
    assert set(re.findall(r"\[(\w+)\]", listed[1])) == critical


def test_rules_ask_only_for_metrics_that_are_documented() -> None:
    documented = set(_METRIC.findall((ROOT / "docs/metrics.md").read_text()))
    asked = {
        _PARTS_OF_HISTOGRAMS.sub("", metric)
        for rule in ALERTS + rules("cachesvc.rules.yml")
        for metric in _METRIC.findall(rule["expr"])
    }
    assert asked
    assert asked <= documented
