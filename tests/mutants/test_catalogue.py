"""Does the catalogue of mutants still fit the product and its tests? `make mutants` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.runs import Outcome, Run, Verdict, judge, read_report
from tests.mutants.variants import (
    PROMISES,
    ROOT,
    Change,
    Mutant,
    StaleMutant,
    check_test,
    read_catalogue,
)

TEST = "tests/core/test_ttl.py::test_the_cap_is_reached"
SLOW = "tests/local/test_coherence.py::test_a_million_local_hits"
MUTANTS = read_catalogue()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_made_and_its_tests_are_there(mutant: Mutant) -> None:
    for change in mutant.changes:
        change.applied_to(ROOT)
    for test_id in mutant.killed_by:
        check_test(ROOT, test_id)


def test_every_promise_has_a_mutant() -> None:
    assert {mutant.promise for mutant in MUTANTS} == set(PROMISES)


@pytest.mark.parametrize(
    "change",
    [
        Change("cachesvc/core/ttl.py", "this text is not there", ""),
        Change("cachesvc/core/ttl.py", "\n", "\n\n"),
        Change("cachesvc/core/no_such_file.py", "", ""),
        Change("tests/core/test_ttl.py", '"""', ""),
        Change("cachesvc/core/ttl.py", "from __future__", "from  __future__"),
    ],
    ids=["not there", "more than once", "no file", "not the product", "without effect"],
)
def test_a_change_that_does_not_fit_is_said_and_not_skipped(change: Change) -> None:
    with pytest.raises(StaleMutant):
        change.applied_to(ROOT)


@pytest.mark.parametrize(
    "test_id",
    [
        "tests/core/test_ttl.py::test_that_is_not_there",
        "tests/core/no_such_file.py::test_it",
        "tests/core/test_ttl.py",
        f"{SLOW}_against_three_thousand_invalidations_are_never_stale",
    ],
    ids=["no function", "no file", "not a test", "slow"],
)
def test_a_test_that_could_kill_nothing_is_refused(test_id: str) -> None:
    with pytest.raises(StaleMutant):
        check_test(ROOT, test_id)


def test_a_broken_copy_is_written_and_the_tree_itself_is_not_touched(tmp_path: Path) -> None:
    mutant = MUTANTS[0]
    before = {change.file: (ROOT / change.file).read_bytes() for change in mutant.changes}
    for file, data in before.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(data)
    mutant.apply(tmp_path)
    assert all((tmp_path / file).read_bytes() != data for file, data in before.items())
    assert {file: (ROOT / file).read_bytes() for file in before} == before


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ({TEST: Outcome.FAILED}, Verdict.KILLED),
        ({f"{TEST}[1]": Outcome.PASSED, f"{TEST}[2]": Outcome.FAILED}, Verdict.KILLED),
        ({TEST: Outcome.PASSED}, Verdict.SURVIVED),
        ({TEST: Outcome.NOT_RUN}, Verdict.UNKNOWN),
        ({f"{TEST}_too": Outcome.FAILED}, Verdict.UNKNOWN),
        ({}, Verdict.UNKNOWN),
    ],
    ids=["failed", "one of its parameters", "passed", "skipped", "another", "not collected"],
)
def test_only_a_test_that_failed_kills(outcomes: dict[str, Outcome], verdict: Verdict) -> None:
    assert judge(Run(outcomes, 0.0, ""), (TEST,)) is verdict


def test_every_one_of_its_tests_has_to_fail() -> None:
    run = Run({TEST: Outcome.FAILED, "tests/b.py::test_b": Outcome.PASSED}, 0.0, "")
    assert judge(run, (TEST, "tests/b.py::test_b")) is Verdict.SURVIVED


def test_an_error_before_a_test_began_is_no_failure_of_it(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase file="tests/a.py" name="test_a"><error/></testcase>'
        '<testcase file="tests/a.py" name="test_b"><skipped/></testcase>'
        '<testcase file="tests/a.py" name="test_c"><failure/></testcase>'
        '<testcase file="tests/a.py" name="test_d"/></testsuite></testsuites>'
    )
    assert [outcome.value for outcome in read_report(report).values()] == [
        "did not run",
        "did not run",
        "failed",
        "passed",
    ]
