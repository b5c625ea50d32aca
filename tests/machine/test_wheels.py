"""Can the daemon and the client share an environment, in whichever order they are installed?

The wheels are built from this checkout. Their dependencies are imported from this environment.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from cachesvc import __version__
from cachesvc_client._version import __version__ as client_version
from tests.support.daemons import ROOT

FOLDERS = {"cachesvc": ROOT, "cachesvc-client": ROOT / "client"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Prints where each module comes from. This environment's packages come last.
IMPORT = f"""
import importlib, sys
sys.path.append({sysconfig.get_path("purelib")!r})
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
"""

DAEMON = ("cachesvc.app.daemon", "cachesvc.cli.commands.get")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels that `python -m build` makes, by the names of their distributions."""
    built = {}
    for name, folder in FOLDERS.items():
        out = tmp_path_factory.mktemp(name)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (built[name],) = out.glob("*.whl")
    return built


class Environment:
    """An empty virtual environment."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False, symlinks=True)
        self._folder = folder
        self._python = str(folder / "bin/python")

    def pip(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pip", "--python", self._python, *map(str, arguments)]
        return subprocess.run(command, text=True, check=False, capture_output=True)

    def install(self, *wheels: Path) -> None:
        done = self.pip("install", "--no-index", "--no-deps", *wheels)
        assert done.returncode == 0, done.stderr

    def uninstall(self, name: str) -> None:
        done = self.pip("uninstall", "--yes", name)
        assert done.returncode == 0, done.stderr

    def imports(self, *modules: str) -> bool:
        """Return whether these modules can be imported; they must be this environment's."""
        command = [self._python, "-I", "-c", IMPORT, *modules]
        done = subprocess.run(command, text=True, check=False, capture_output=True)
        for path in done.stdout.splitlines():
            assert Path(path).is_relative_to(self._folder), path
        assert (
            done.returncode == 0 or "ModuleNotFoundError: No module named 'cachesvc" in done.stderr
        )
        return done.returncode == 0


def test_each_file_is_in_one_wheel(wheels: dict[str, Path]) -> None:
    files = {name: set(zipfile.ZipFile(wheel).namelist()) for name, wheel in wheels.items()}
    packages = {name: {file.split("/")[0] for file in found} for name, found in files.items()}
    assert not packages["cachesvc"] & packages["cachesvc-client"]
    assert {"cachesvc"} == {each for each in packages["cachesvc"] if ".dist-info" not in each}
    assert {path.parent.name for path in ROOT.glob("client/*/__init__.py")} < packages[
        "cachesvc-client"
    ]


def test_the_daemon_depends_on_the_client_of_its_own_version() -> None:
    assert client_version == __version__
    assert f"cachesvc-client=={__version__}" in PROJECT["dependencies"]


def test_the_client_works_when_the_daemon_was_taken_away(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(wheels["cachesvc"])
    environment.install(wheels["cachesvc-client"])
    assert environment.imports(*DAEMON, "cachesvc_client")

    environment.uninstall("cachesvc")
    assert environment.imports("cachesvc_client", "cachesvc_format.blob", "cachesvc_proto.v1")
    assert not environment.imports("cachesvc")


def test_the_daemon_works_again_when_the_client_is_back(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv")
    environment.install(wheels["cachesvc-client"])
    environment.install(wheels["cachesvc"])
    assert environment.imports(*DAEMON, "cachesvc_client")

    environment.uninstall("cachesvc-client")
    assert environment.imports("cachesvc")
    assert not environment.imports(*DAEMON)
    assert "requires cachesvc-client, which is not installed" in environment.pip("check").stdout

    environment.install(wheels["cachesvc-client"])
    assert environment.imports(*DAEMON, "cachesvc_client")
