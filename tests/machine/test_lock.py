"""Is everything that the daemon runs on in `requirements.lock`, with hashes, for each machine?

The walk follows the metadata of the installed packages; another test checks that these are the
lock's.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The checkout has the client's version and files, so the lock has only its dependencies.
CLIENT = tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]
INSTALL = "install --require-hashes -r requirements.lock"
# Packages of an editable install, and pip and setuptools, which every venv has.
NOT_THE_DAEMONS = {"cachesvc", "cachesvc-client", "editables", "pip", "setuptools"}
# Imports all of the daemon, while the packages named by the arguments cannot be imported.
IMPORT_ALL = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(name, path, target=None):
        if name.partition(".")[0] in sys.argv:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent)
import cachesvc, cachesvc_client, grpc
for module in pkgutil.walk_packages(cachesvc.__path__, "cachesvc."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""


def entries() -> Iterator[tuple[Requirement, list[str]]]:
    """Read the lock: each requirement with its hashes."""
    text = re.sub(r"^ *#.*\n", "", LOCK.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        words = line.partition(" --hash=")
        yield Requirement(words[0].strip()), re.findall(r"--hash=sha256:([0-9a-f]{64})\b", line)


LOCKED = {canonicalize_name(requirement.name): requirement for requirement, _ in entries()}


def version_of(name: str) -> Version:
    (only,) = LOCKED[canonicalize_name(name)].specifier
    assert only.operator == "==", only
    return Version(only.version)


def machines() -> Iterator[dict[str, str]]:
    for python, processor in itertools.product(("3.11", "3.12", "3.13"), ("x86_64", "aarch64")):
        yield {
            "python_version": python,
            "python_full_version": f"{python}.4",
            "platform_machine": processor,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "extra": "",
        }


def applies(requirement: Requirement, machine: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(machine)


@pytest.mark.parametrize(
    "machine",
    [pytest.param(m, id=f"{m['python_version']} {m['platform_machine']}") for m in machines()],
)
def test_the_lock_has_all_that_the_daemon_needs_in_versions_that_satisfy_it(
    machine: dict[str, str],
) -> None:
    waiting = [(each["name"], text) for each in (PROJECT, CLIENT) for text in each["dependencies"]]
    seen = set()
    while waiting:
        whose, text = waiting.pop()
        needed = Requirement(text)
        if not applies(needed, machine):
            continue
        name = canonicalize_name(needed.name)
        if name == CLIENT["name"]:
            continue
        said = f"{whose} needs {text}: make lock"
        assert name in LOCKED, said
        assert applies(LOCKED[name], machine), said
        assert needed.specifier.contains(version_of(name), prereleases=True), said
        if name not in seen:
            seen.add(name)
            waiting += [(name, more) for more in metadata.requires(name) or []]
    assert len(seen) > 30


def test_every_package_has_its_hashes_and_comes_from_no_particular_place() -> None:
    for requirement, hashes in entries():
        assert hashes, requirement
        assert requirement.url is None
    for line in LOCK.read_text().splitlines():
        assert line.startswith(" ") or re.match(r"$|#|[a-z0-9][a-z0-9._-]*==", line), line
        assert not re.search(r"://|--(?!hash=sha256:)|file:| /", line), line


def test_what_is_installed_here_is_what_the_lock_says() -> None:
    installed = {
        canonicalize_name(each.metadata["Name"]): each.version for each in metadata.distributions()
    }
    here = {name: str(version_of(name)) for name, each in LOCKED.items() if each.marker is None}
    assert {name: installed.get(name) for name in here} == here, "run make again: pip install"


def test_the_daemon_imports_all_of_itself_with_nothing_else_than_what_is_locked() -> None:
    absent = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & (LOCKED.keys() | NOT_THE_DAEMONS)
    ]
    assert {"torch", "pytest"} <= set(absent)
    loaded = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *absent],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert {"cachesvc.app.daemon", "cachesvc.origin.s3_client"} <= set(loaded.stdout.split())


@pytest.mark.parametrize("user", ["Makefile", "Dockerfile", "docs/deploying.md"])
def test_whoever_installs_the_daemon_takes_it_from_the_lock(user: str) -> None:
    text = (ROOT / user).read_text()
    assert INSTALL in text.replace("$(PIP)", "install").replace("--no-cache-dir ", "")
    assert "pip install -c constraints.txt ." not in text
