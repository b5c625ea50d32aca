"""Adds to a wheel and an sdist what the checkout does not have as files: the commit, for example.

Both packages are built with it: `package` and `checkout` are options of each pyproject.toml.

- `_revision.py` in the package names the commit: `SOURCE_REVISION`, if the builder has no git (the
  Dockerfile), otherwise that of the checkout, with `-changed` if a file differs from the commit. A
  build from an sdist keeps the sdist's file.
- The sdist has the contract, from which the stubs were compiled, and no `.gitignore`.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FILE = "_revision.py"
TEXT = '"""Written by the build: the commit that this was built from."""\n\nREVISION = "{}"\n'
CONTRACT = "proto/cachesvc/v1/cache.proto"


class BuildHook(BuildHookInterface[Any]):
    """What hatchling calls."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the files that are added; what has to be written is outside the checkout."""
        included: dict[str, str] = build_data["force_include"]
        checkout = Path(self.root, self.config["checkout"])
        if self.target_name == "sdist":
            for source in [each for each, name in included.items() if name == ".gitignore"]:
                del included[source]
            if not Path(self.root, CONTRACT).exists():
                included[str(checkout / CONTRACT)] = CONTRACT
        file = f"{self.config['package']}/{FILE}"
        if version == "editable" or Path(self.root, file).exists():
            return
        if revision := os.environ.get("SOURCE_REVISION") or _commit_of(checkout):
            self._folder = tempfile.TemporaryDirectory()
            written = Path(self._folder.name, FILE)
            written.write_text(TEXT.format(revision))
            included[str(written)] = file

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the written file."""
        if self._folder is not None:
            self._folder.cleanup()


def _commit_of(checkout: Path) -> str | None:
    """Return the commit, or None if git is not there or the folder is no checkout."""
    # Without this, a folder that lies inside another project would get that project's commit.
    if not (checkout / ".git").exists():
        return None
    commit = _git(checkout, "rev-parse", "HEAD")
    if not commit:
        return None
    return f"{commit}-changed" if _git(checkout, "status", "--porcelain") else commit


def _git(checkout: Path, *arguments: str) -> str | None:
    # Root builds from checkouts of other users, which git refuses by default.
    options = ("--no-optional-locks", "-c", "safe.directory=*", "-C", str(checkout))
    command = ("git", *options, *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
