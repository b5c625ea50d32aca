"""Do a wheel and an sdist say which commit they were built from?

Each test builds in a copy of what the packages are made of, with a repository of its own.
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

PARTS = (".gitignore", "cachesvc", "client", "proto", "pyproject.toml")
FILES = ("CHANGELOG.md", "README.md", "LICENSE", "requirements.lock")
# The folder of each package's project in the checkout.
FOLDERS = {"cachesvc": ".", "cachesvc_client": "client"}
each_package = pytest.mark.parametrize("package", FOLDERS)


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.invalid")
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for part in (*PARTS, *FILES):
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / part, folder / part, ignore=ignored)
        else:
            shutil.copy(ROOT / part, folder / part)
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all of it")
    return folder


def build(kind: str, folder: Path, out: Path, **variables: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    environment = {**os.environ, **variables}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    (built,) = out.iterdir()
    return built


def revision_in(wheel: Path, package: str = "cachesvc") -> str | None:
    with zipfile.ZipFile(wheel) as opened:
        file = f"{package}/_revision.py"
        if file not in opened.namelist():
            return None
        written: dict[str, str] = {}
        exec(opened.read(file), written)
        return written["REVISION"]


@each_package
def test_a_wheel_and_a_wheel_of_the_sdist_carry_the_commit_and_the_tree_stays_clean(
    checkout: Path, tmp_path: Path, package: str
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    project = checkout / FOLDERS[package]
    assert revision_in(build("wheel", project, tmp_path / "wheel"), package) == commit

    with tarfile.open(build("sdist", project, tmp_path / "sdist")) as opened:
        # Debian 12's Python 3.11.2 has no `filter`.
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    # An sdist that is unpacked inside another project keeps its own commit.
    git(tmp_path / "unpacked", "init", "--quiet")
    assert revision_in(build("wheel", unpacked, tmp_path / "again"), package) == commit
    assert git(checkout, "status", "--porcelain") == ""


def test_a_wheel_of_changed_files_says_so(checkout: Path, tmp_path: Path) -> None:
    file = checkout / "cachesvc/__init__.py"
    file.write_text(file.read_text() + "\n# a change\n")
    commit = git(checkout, "rev-parse", "HEAD")
    assert revision_in(build("wheel", checkout, tmp_path / "wheel")) == f"{commit}-changed"


def test_a_builder_without_git_names_the_commit(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    wheel = build("wheel", checkout, tmp_path / "wheel", SOURCE_REVISION="0123abc")
    assert revision_in(wheel) == "0123abc"


def test_a_folder_without_git_builds_without_a_commit(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".git")
    git(checkout.parent, "init", "--quiet")
    assert revision_in(build("wheel", checkout, tmp_path / "wheel", SOURCE_REVISION="")) is None


def test_a_checkout_has_no_revision() -> None:
    assert revision() is None
