"""Do wheels and sdists have what users need, and nothing of the tests?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.release import archives
from tests.release.archives import PACKAGES, Package
from tests.support.daemons import ROOT

each_package = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)


@each_package
def test_an_sdist_has_the_licence_and_the_contract_and_no_test_data(
    package: Package, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT / package.folder, check=True, capture_output=True)
    (sdist,) = tmp_path.iterdir()
    files = archives.files_of_sdist(sdist)
    assert archives.faults_of_sdist(package, files) == []
    assert files[archives.CONTRACT] == (ROOT / archives.CONTRACT).read_bytes()
    assert files["LICENSE"] == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("tests/fuzz/corpus/png/1", b"text", "tests/fuzz/corpus/png/1 is not for users"),
        ("bench/results/a.json", b"{}", "bench/results/a.json is not for users"),
        (".gitignore", b"dist/", ".gitignore is not for users"),
        (".github/workflows/ci.yml", b"", ".github/workflows/ci.yml is not for users"),
        ("cachesvc/photo.png", b"\x89PNG\0", "cachesvc/photo.png is binary"),
        ("cachesvc/a.py", b" " * 300_000, "cachesvc/a.py has 300,000 bytes, more than 262,144"),
    ],
)
def test_a_file_that_is_not_for_users_is_named(name: str, data: bytes, said: str) -> None:
    assert said in archives.faults_of_sdist(PACKAGES[1], {name: data})
    assert said in archives.faults_of_wheel(PACKAGES[1], {name: data})


def test_a_file_that_is_missing_is_named() -> None:
    faults = archives.faults_of_sdist(PACKAGES[1], {})
    assert "it lacks LICENSE" in faults
    assert "it lacks cachesvc/_revision.py" in faults
    assert "it lacks cachesvc/edge/http/static/index.html" in archives.faults_of_wheel(
        PACKAGES[1], {}
    )
