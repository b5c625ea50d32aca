"""Which commit was this program built from?"""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

_GIT_WITHIN_S = 5


def revision() -> str | None:
    """Return the commit that the build wrote; None in a checkout, which has no such file.

    `-changed` at its end says that files differed from the commit.
    """
    try:
        written = importlib.import_module("cachesvc._revision")
    except ModuleNotFoundError:
        return None
    found: str = written.REVISION
    return found


def checkout_revision(root: Path = Path(__file__).parents[1]) -> str | None:
    """Return the commit of the checkout that this program runs from; None if it is none.

    `-changed` at its end says that files differ from the commit. Starts git, so the daemon does
    not call it.
    """
    # A folder of packages inside another project's checkout has no commit of ours.
    if not (root / ".git").exists() or not (root / "pyproject.toml").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-changed" if _git(root, "status", "--porcelain") else commit


def _git(root: Path, *arguments: str) -> str | None:
    # Root may run checkouts of other users, which git refuses by default.
    options = ("--no-optional-locks", "-c", "safe.directory=*", "-C", str(root))
    command = ("git", *options, *arguments)
    try:
        done = subprocess.run(  # noqa: S603 - fixed words
            command, capture_output=True, text=True, check=False, timeout=_GIT_WITHIN_S
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
