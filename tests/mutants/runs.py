"""What do the tests say of one tree? Runs some of them there, and judges the outcome."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from xml.etree import ElementTree

# Everything that a test may need from the tree; documents and benchmarks are not mutated.
COPIED = ("cachesvc", "client", "tests", "examples", "deploy/kubernetes", "pyproject.toml")
# A mutant may hang its tests. The first limit ends a test, the second all tests of a mutant.
TEST_LIMIT_S = 60
RUN_LIMIT_S = 300.0


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    # An error before the test began, or a skip: the test says nothing of the product.
    NOT_RUN = "did not run"


class Verdict(Enum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    UNKNOWN = "NOT JUDGED"


@dataclass(frozen=True)
class Run:
    """The outcomes of the tests of one tree, by test id, and their output."""

    outcomes: Mapping[str, Outcome]
    seconds: float
    output: str

    def outcome_of(self, test_id: str) -> Outcome:
        """Return the outcome of a test; a test with parameters has failed if it failed with any."""
        found = [
            outcome
            for name, outcome in self.outcomes.items()
            if name == test_id or name.startswith(f"{test_id}[")
        ]
        for worse in (Outcome.FAILED, Outcome.NOT_RUN):
            if worse in found:
                return worse
        return Outcome.PASSED if found else Outcome.NOT_RUN


def copy_tree(source: Path, target: Path) -> None:
    """Copy what the tests need. Times are kept, so that existing bytecode stays valid."""
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
        else:
            shutil.copy2(source / name, target / name)


def run_tests(
    root: Path, test_ids: Iterable[str], *, workers: int = 0, limit_s: float = RUN_LIMIT_S
) -> Run:
    """Run these tests of the tree at `root`, whose own packages come first on the path."""
    report = root / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
    command += ["-n", str(workers), "-m", "not slow", "-o", f"timeout={TEST_LIMIT_S}"]
    command += [f"--junitxml={report}", "-o", "junit_family=xunit1", *test_ids]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    started = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
        output = done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        output = f"not ended after {limit_s:.0f} s"
    outcomes = read_report(report) if report.exists() else {}
    return Run(outcomes, time.monotonic() - started, output)


def read_report(report: Path) -> dict[str, Outcome]:
    """Return the outcome of each test in a JUnit report of pytest's (family xunit1)."""
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        test_id = f"{case.get('file')}::{case.get('name')}"
        if case.find("failure") is not None:
            outcomes[test_id] = Outcome.FAILED
        elif case.find("error") is not None or case.find("skipped") is not None:
            outcomes.setdefault(test_id, Outcome.NOT_RUN)
        else:
            outcomes[test_id] = Outcome.PASSED
    return outcomes


def judge(run: Run, killed_by: Collection[str]) -> Verdict:
    """Return whether every test that must fail for a mutant has failed."""
    outcomes = {run.outcome_of(test_id) for test_id in killed_by}
    if Outcome.PASSED in outcomes:
        return Verdict.SURVIVED
    return Verdict.KILLED if outcomes == {Outcome.FAILED} else Verdict.UNKNOWN
