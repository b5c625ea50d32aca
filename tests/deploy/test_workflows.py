"""Do the forge's workflows run only actions that are pinned, with no more rights than they need?"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs_of(path: Path) -> dict[str, Any]:
    jobs: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return jobs


@each_workflow
def test_the_schema_accepts_it(path: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    checked = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@each_workflow
def test_every_action_is_pinned_to_a_commit_beside_its_version(path: Path) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


@each_workflow
def test_a_job_that_may_publish_runs_nothing_of_the_repository(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs_of(path).items():
        assert job["timeout-minutes"] <= 40, name
        if "permissions" not in job:
            continue
        assert len(job["permissions"]) == 1, name
        assert job["environment"], name
        steps = job["steps"]
        assert not any("checkout" in step.get("uses", "") for step in steps), name
        assert not any("make " in step.get("run", "") for step in steps), name


def test_nothing_is_published_that_was_not_checked() -> None:
    jobs = jobs_of(ROOT / ".github/workflows/release.yml")
    rights = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert rights == {
        "publish-packages": {"id-token": "write"},
        "publish-image": {"packages": "write"},
    }
    for name in rights:
        assert jobs[name]["needs"] == ["packages", "image"]
    checks = [step.get("run", "") for name in ("packages", "image") for step in jobs[name]["steps"]]
    assert any("release-check" in run for run in checks)
    assert any("image-check" in run for run in checks)
