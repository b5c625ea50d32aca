"""`make fuzz`: does any parser of foreign bytes do anything but read or refuse?

    python -m tests.fuzz --seconds 60 [--parser NAME ...] [--folder DIR]

Runs atheris on each parser for so long, and prints how many inputs it tried and how many branches
they reached. If one crashed, the exit code is 1, and the folder keeps the input, with the command
that tries it again. The folder also keeps the inputs that were found, and a later run starts from
them.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.parser import Parser
from tests.fuzz.parsers import PARSERS

ROOT = Path(__file__).parents[2]
# A line of libFuzzer: `#1234  DONE   cov: 56 ft: 78 corp: 9/10b ...`
_PROGRESS = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ", re.MULTILINE)
_TAIL_LINES = 25


@dataclass(frozen=True)
class Result:
    """`reached` counts branches of the instrumented code, those of the imports included."""

    parser: str
    executions: int
    reached: int
    crashers: list[Path]
    exit_code: int
    output: str

    @property
    def is_good(self) -> bool:
        return self.exit_code == 0 and not self.crashers and self.executions > 0


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("--parser", action="append", choices=sorted(PARSERS))
    arguments.add_argument("--folder", type=Path, default=ROOT / ".fuzz")
    asked = arguments.parse_args()
    results = []
    for name in asked.parser or PARSERS:
        result = _hunt(PARSERS[name], asked.seconds, asked.folder.resolve())
        results.append(result)
        print(
            f"{name:17} {result.executions:10,} inputs  {result.reached:6} branches  "
            f"{'ok' if result.is_good else 'FAILED'}",
            flush=True,
        )
        if not result.is_good:
            _explain(result)
    bad = [result.parser for result in results if not result.is_good]
    total = sum(result.executions for result in results)
    print(f"{total:,} inputs in all;", f"failed: {', '.join(bad)}" if bad else "no crash")
    return 1 if bad else 0


def _hunt(parser: Parser, seconds: int, folder: Path) -> Result:
    found, crashed = folder / parser.name, folder / "crashes" / parser.name
    found.mkdir(parents=True, exist_ok=True)
    crashed.mkdir(parents=True, exist_ok=True)
    known = set(crashed.iterdir())
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={crashed}/", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz.hunt", parser.name, *options]
    done = subprocess.run(
        [*command, str(found), str(parser.corpus)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    output = done.stdout.decode(errors="replace")
    progress = _PROGRESS.findall(output) or [("0", "0")]
    crashers = sorted(set(crashed.iterdir()) - known)
    return Result(
        parser.name,
        executions=int(progress[-1][0]),
        reached=int(progress[-1][1]),
        crashers=crashers,
        exit_code=done.returncode,
        output=output,
    )


def _explain(result: Result) -> None:
    print(*result.output.splitlines()[-_TAIL_LINES:], sep="\n")
    for crasher in result.crashers:
        print(f"again: PYTHONPATH=.:client python -m tests.fuzz.hunt {result.parser} {crasher}")


if __name__ == "__main__":
    sys.exit(main())
