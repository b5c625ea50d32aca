"""Do a wheel and an sdist say which commit they were built from?

Each test builds in a copy of what the daemon's wheel is made of, with a repository of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from cachesvc.revision import revision
from tests.support.daemons import ROOT

FILE = "cachesvc/_revision.py"
PARTS = (".gitignore", "cachesvc", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.invalid")
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        elif (ROOT / part).exists():
            shutil.copy(ROOT / part, folder / part)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all of it")
    return folder


def build(kind: str, folder: Path, **variables: str) -> Path:
    out = folder.parent / f"{kind}-of-{folder.name}"
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    environment = {**os.environ, **variables}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


def revision_in(wheel: Path) -> str | None:
    with zipfile.ZipFile(wheel) as opened:
        if FILE not in opened.namelist():
            return None
        written: dict[str, str] = {}
        exec(opened.read(FILE), written)
        return written["REVISION"]


def test_a_wheel_and_a_wheel_of_the_sdist_carry_the_commit_and_the_tree_stays_clean(
    checkout: Path, tmp_path: Path
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert revision_in(build("wheel", checkout)) == commit

    with tarfile.open(build("sdist", checkout)) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    # An sdist that is unpacked inside another project has its own commit still.
    git(tmp_path / "unpacked", "init", "--quiet")
    assert revision_in(build("wheel", unpacked)) == commit
    assert git(checkout, "status", "--porcelain") == ""


def test_a_wheel_of_changed_files_says_so(checkout: Path) -> None:
    file = checkout / "cachesvc/__init__.py"
    file.write_text(file.read_text() + "\n# a change\n")
    assert revision_in(build("wheel", checkout)) == f"{git(checkout, 'rev-parse', 'HEAD')}-changed"


def test_a_builder_without_git_names_the_commit(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert revision_in(build("wheel", checkout, SOURCE_REVISION="0123abc")) == "0123abc"


def test_a_folder_without_git_builds_without_a_commit(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    git(checkout.parent, "init", "--quiet")
    assert revision_in(build("wheel", checkout, SOURCE_REVISION="")) is None


def test_a_checkout_has_no_revision() -> None:
    assert revision() is None
