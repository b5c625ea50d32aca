"""Does the page advise a person of everything that needs action, and of nothing else?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.advice import Readings, advise
from cachesvc.core.certificates import Outlook

WELL = Readings(
    not_ready={},
    is_origin_left_alone=False,
    unfinished_invalidations=0,
    damaged_entries=0,
    decode_failures=0,
    catalog_resets=0,
    disk_rejections=0,
    memory_max_bytes=1000,
    held_bytes=0,
    foreign_names=0,
    disk_free_bytes=100,
    disk_floor_bytes=100,
    loop_lag_s=0.25,
)


def test_a_cache_that_is_well_needs_nobody() -> None:
    assert advise(replace(WELL, certificates={"grpc": Outlook.HOLDS})) == []
    assert advise(WELL) == []
    assert advise(replace(WELL, held_bytes=500)) == []


@pytest.mark.parametrize(
    ("change", "name", "severity"),
    [
        ({"not_ready": {"daemon": "starting"}}, "not_ready_daemon", "critical"),
        ({"unfinished_invalidations": 2}, "invalidations_not_durable", "critical"),
        ({"is_origin_left_alone": True}, "origin_left_alone", "warning"),
        ({"catalog_resets": 1}, "catalog_reset", "warning"),
        ({"damaged_entries": 1}, "damaged_entries", "warning"),
        ({"decode_failures": 1}, "undecodable_objects", "warning"),
        ({"disk_rejections": 1}, "disk_rejections", "warning"),
        ({"held_bytes": 501}, "held_by_readers", "warning"),
        ({"foreign_names": 3}, "foreign_names", "warning"),
        ({"disk_free_bytes": 99}, "disk_at_floor", "warning"),
        ({"disk_max_bytes": 10, "disk_limit_in_force_bytes": 8}, "disk_at_floor", "warning"),
        ({"loop_lag_s": 0.3}, "loop_lagging", "warning"),
        ({"certificates": {"grpc": Outlook.ENDS_SOON}}, "certificates_end_soon", "warning"),
        ({"certificates": {"http": Outlook.EXPIRED}}, "certificates_over", "critical"),
        ({"certificates": {"http": Outlook.NOT_YET}}, "certificates_over", "critical"),
    ],
)
def test_each_trouble_is_named_with_what_to_do(
    change: dict[str, Any], name: str, severity: str
) -> None:
    (advice,) = advise(replace(WELL, **change))
    assert (advice.id, advice.severity) == (name, severity)
    assert advice.text
    assert advice.do


def test_each_trouble_leads_to_its_section_of_the_runbook() -> None:
    runbook = (Path(__file__).parents[2] / "docs/runbook.md").read_text()
    ill = Readings(
        not_ready={"daemon": "starting"},
        is_origin_left_alone=True,
        unfinished_invalidations=1,
        damaged_entries=1,
        decode_failures=1,
        catalog_resets=1,
        disk_rejections=1,
        memory_max_bytes=1,
        held_bytes=1,
        foreign_names=1,
        disk_free_bytes=0,
        disk_floor_bytes=1,
        loop_lag_s=1.0,
    )
    sections = {advice.id: advice.runbook for advice in advise(ill)}
    assert [name for name, section in sections.items() if not section] == ["foreign_names"]
    for section in filter(None, sections.values()):
        assert f"\n### {section}\n" in runbook


def test_what_is_critical_comes_first() -> None:
    found = advise(replace(WELL, foreign_names=1, unfinished_invalidations=1, damaged_entries=1))
    assert [advice.severity for advice in found] == ["critical", "warning", "warning"]
