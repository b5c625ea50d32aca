"""`make mutants`: is every broken variant of the product found by the tests that claim to?

    python -m tests.mutants [WORD ...]     only those with one of the words in their name

The same tests run on an unbroken copy first, and must pass. The exit code is 1 if they do not, if a
mutant survives, or if one could not be judged.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.runs import (
    TEST_LIMIT_S,
    Outcome,
    Run,
    Verdict,
    copy_tree,
    judge,
    run_tests,
)
from tests.mutants.variants import ROOT, Mutant, check_test, read_catalogue

AT_ONCE = 2


def main(words: list[str]) -> int:
    mutants = [
        mutant
        for mutant in read_catalogue()
        if not words or any(word in mutant.name for word in words)
    ]
    test_ids = sorted({test_id for mutant in mutants for test_id in mutant.killed_by})
    for test_id in test_ids:
        check_test(ROOT, test_id)
    with tempfile.TemporaryDirectory(prefix="cachesvc-mutants-") as folder:
        unbroken = Path(folder) / "unbroken"
        unbroken.mkdir()
        copy_tree(ROOT, unbroken)
        print(f"{len(test_ids)} tests on the unbroken copy ...", flush=True)
        # Nothing hangs in the unbroken copy; a busy machine may need all the time of its tests, and
        # that of a test to start.
        limit_s = (AT_ONCE + len(test_ids)) * TEST_LIMIT_S / AT_ONCE
        run = run_tests(unbroken, test_ids, workers=AT_ONCE, limit_s=limit_s)
        if not_passed := _not_passed(run, test_ids):
            print(run.output, "not passed on the unbroken copy:", *not_passed, sep="\n")
            return 1
        print(f"passed in {run.seconds:.0f} s; now {len(mutants)} mutants", flush=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda mutant: _try(mutant, unbroken), mutants))
    return _report(mutants, results)


def _not_passed(run: Run, test_ids: list[str]) -> list[str]:
    return [test_id for test_id in test_ids if run.outcome_of(test_id) is not Outcome.PASSED]


def _try(mutant: Mutant, unbroken: Path) -> Run:
    with tempfile.TemporaryDirectory(dir=unbroken.parent) as folder:
        copy_tree(unbroken, Path(folder))
        mutant.apply(Path(folder))
        run = run_tests(Path(folder), mutant.killed_by)
    verdict = judge(run, mutant.killed_by)
    print(f"{verdict.value:10} {run.seconds:5.1f} s  {mutant.name}", flush=True)
    if verdict is not Verdict.KILLED:
        print(run.output, flush=True)
    return run


def _report(mutants: list[Mutant], results: list[Run]) -> int:
    verdicts = [judge(run, mutant.killed_by) for mutant, run in zip(mutants, results, strict=True)]
    print("\npromise  verdict     seconds  mutant, and the tests that must fail for it")
    for mutant, run, verdict in zip(mutants, results, verdicts, strict=True):
        print(f"{mutant.promise:7}  {verdict.value:10} {run.seconds:8.1f}  {mutant.name}")
        for test_id in mutant.killed_by:
            failed = run.outcome_of(test_id) is Outcome.FAILED
            print(f"{'':30}{test_id}{'' if failed else '  <- ' + run.outcome_of(test_id).value}")
    killed = verdicts.count(Verdict.KILLED)
    print(f"\n{killed} of {len(mutants)} mutants killed")
    return 0 if killed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
