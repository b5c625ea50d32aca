"""How do programs that tests and benchmarks need get onto a machine? By `make programs`.

As root, it lets apt-get install what is missing from the table in `tests/support/debian.py`; any
other user is told what to install. For each program that is still missing, it prints which tests
are left out; a missing program fails no test.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tests.support.apt import Apt, Interrupted
from tests.support.debian import TABLE, Programs, is_installed

_OK = 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make programs", description="Install what tests need.")
    parser.add_argument("tests", nargs="*", default=["tests"], help="tests that are going to run")
    parser.add_argument("--slow", action="store_true", help="the slow tests are going to run too")
    parser.add_argument("--tried", type=Path, help="a file that keeps what could not be had")
    parser.add_argument("--again", action="store_true", help="try those again too")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where dpkg's state is")
    arguments, _ = parser.parse_known_args()  # TESTS may carry pytest's own options
    wanted = [row for row in TABLE if _are_needed(row, arguments.tests, slow=arguments.slow)]
    before = _missing(wanted)
    why = None
    try:
        if before:
            tried = arguments.tried if not arguments.again else None
            why = _why_not(before, tried, arguments.root) or _install(before, arguments.root)
    except Interrupted as exc:
        return exc.status
    after = _missing(wanted)
    _say(wanted, before, after, why)
    if arguments.tried is not None:
        with contextlib.suppress(OSError):  # not our folder: the next run tries again
            arguments.tried.write_text("".join(f"{name}\n" for name in _packages(after)))
    return _OK


def _are_needed(row: Programs, tests: Sequence[str], *, slow: bool) -> bool:
    """Return whether tests below one of these paths use the program."""
    if row.slow and not slow:
        return False
    paths = [PurePosixPath(test.partition("::")[0]) for test in tests]
    users = [PurePosixPath(user) for user in row.used_by]
    return any(
        path.is_relative_to(user) or user.is_relative_to(path) for path in paths for user in users
    )


def _missing(rows: Sequence[Programs]) -> list[Programs]:
    return [row for row in rows if not all(map(is_installed, row.commands))]


def _packages(rows: Sequence[Programs]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.packages))


def _why_not(missing: Sequence[Programs], tried: Path | None, root: Path) -> str | None:
    """Return why nothing can be installed now and what to do, or None."""
    packages = " ".join(_packages(missing))
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        return f"There is no apt-get here. In Debian the packages are: {packages}"
    if os.geteuid() != 0:
        return f"Only root can install them: {_command(missing)}"
    if tried is not None and tried.exists() and set(packages.split()) <= set(_lines(tried)):
        return f"apt-get failed the last time. To try again: make programs, or {_command(missing)}"
    return Apt(root).why_unsound()


def _command(rows: Sequence[Programs]) -> str:
    return f"apt-get install --no-install-recommends {' '.join(_packages(rows))}"


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _install(missing: Sequence[Programs], root: Path) -> str | None:
    """Install what apt-get has; return what is to be done by hand afterwards, or None."""
    print(f"Installing programs for the tests: {' '.join(_packages(missing))}", flush=True)
    with Apt(root) as apt:
        # All at once is quickest. One unavailable package makes them all fail: then each alone.
        alone = [[row] for row in missing] if len(missing) > 1 else []
        for rows in (missing, *alone):
            if packages := _packages(_missing(rows)):
                apt.install(packages)
            if not _missing(missing) or apt.gave_up:
                break
        left = _missing(missing)
        again = f"To try again: make programs, or {_command(left)}" if left else None
        return apt.why_unsound() or again


def _say(
    wanted: Sequence[Programs],
    before: Sequence[Programs],
    after: Sequence[Programs],
    why: str | None,
) -> None:
    installed = [row for row in before if row not in after]
    found = [row for row in wanted if row not in before]
    for rows, what in ((found, "found"), (installed, "installed")):
        if rows:
            print(f"Programs {what}: {', '.join(row.commands[0] for row in rows)}")
    for row in after:
        absent = [command for command in row.commands if not is_installed(command)]
        print(f"Program missing: {', '.join(absent)}: {row.without} ({', '.join(row.used_by)})")
    if why is not None:
        print(why)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
