"""Runs one of this folder's programs in a process of its own, and reads its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.support.daemons import ROOT


def report_of(program: str, *arguments: object, within_s: float) -> dict[str, Any]:
    """Run `python -m tests.crash.{program}` and return its JSON output.

    The program has one thread: a process that forks may have no other, not even numpy's.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"tests.crash.{program}", *map(str, arguments)],
        env={
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.stdout, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])  # the log may precede it
    failure = report.pop("failure")
    print(report)  # noqa: T201 - the figures of the run
    assert not failure, failure
    return report
