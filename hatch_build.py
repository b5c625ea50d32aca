"""Writes the commit into what is built, so that `cachesvc version` can say it.

A wheel and an sdist carry `cachesvc/_revision.py`; a checkout never has the file. The commit is
`SOURCE_REVISION`, if the builder has no git (the Dockerfile), or that of this checkout, with
`-changed` if a file differs from the commit. A build from an sdist keeps the sdist's file.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "cachesvc/_revision.py"
TEXT = '"""Written by the build: the commit that this was built from."""\n\nREVISION = "{}"\n'


class RevisionHook(BuildHookInterface[Any]):
    """Adds `cachesvc/_revision.py` to the wheel and to the sdist."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file outside the checkout, and name it for the build."""
        root = Path(self.root)
        if version == "editable" or (root / FILE).exists():
            return
        revision = os.environ.get("SOURCE_REVISION") or _commit_of(root)
        if not revision:
            return
        self._folder = tempfile.TemporaryDirectory()
        written = Path(self._folder.name) / "_revision.py"
        written.write_text(TEXT.format(revision))
        build_data["force_include"][str(written)] = FILE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the written file."""
        if self._folder is not None:
            self._folder.cleanup()


def _commit_of(root: Path) -> str | None:
    """Return the checkout's commit, or None if git is not there or `root` is no checkout."""
    # Without this, a folder that lies inside another project would get that project's commit.
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-changed" if _git(root, "status", "--porcelain") else commit


def _git(root: Path, *arguments: str) -> str | None:
    # Root builds from checkouts of other users, which git refuses by default.
    options = ("--no-optional-locks", "-c", "safe.directory=*", "-C", str(root))
    command = ("git", *options, *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
