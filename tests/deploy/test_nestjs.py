"""Does the NestJS module keep promise 1 for the backend? Its own tests, against real daemons.

The tests are TypeScript (`make test-nestjs`): mTLS, refusals, and a host, Redis or the backend
itself that is down. They run with the other tests if their tools are installed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.daemons import ROOT
from tests.support.debian import why_missing

NEEDED = ("node", "npm", "redis-server", "openssl")
EXAMPLE = ROOT / "examples/nestjs"
INSTALL = ("npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit", "--loglevel=error")


@pytest.fixture(params=["examples/nestjs", "deploy/grafana"])
def lock(request: pytest.FixtureRequest) -> str:
    return (ROOT / request.param / "package-lock.json").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_nestjs_module_passes_its_own_tests() -> None:
    if (reason := why_missing(*NEEDED)) is not None:
        pytest.skip(reason)
    installed = EXAMPLE / "node_modules/.installed"  # as make marks it
    if not installed.exists():
        subprocess.run(INSTALL, cwd=EXAMPLE, check=True, timeout=100)
        installed.touch()
    ran = subprocess.run(
        ("npm", "test", "--silent"),
        cwd=EXAMPLE,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r" pass (\d+)$", ran.stdout, re.MULTILINE)
    assert passed is not None, ran.stdout
    assert int(passed[1]) > 30
    assert " skipped 0\n" in ran.stdout


def test_make_installs_only_the_daemon_for_them() -> None:
    """What the tests of Python need has torch among it."""
    makefile = (ROOT / "Makefile").read_text()
    (needed,) = re.findall(r"^test-nestjs: ([^#]*?) *(?:#.*)?$", makefile, re.MULTILINE)
    assert "$(VENV)/.daemon" in needed.split()
    assert "$(VENV)/.tests" not in needed


def test_the_lock_file_names_no_registry_but_the_public_one(lock: str) -> None:
    assert set(re.findall(r'"resolved": "https?://([^/]+)/', lock)) <= {"registry.npmjs.org"}
    assert '"integrity"' in lock


def test_the_lock_file_has_every_package_that_one_of_them_names(lock: str) -> None:
    # `npm ci` would refuse the lock, even for another platform's package that is never installed.
    packages = json.loads(lock)["packages"]
    locked = {path.rpartition("node_modules/")[2] for path in packages}
    named = {
        name
        for package in packages.values()
        for group in ("dependencies", "devDependencies", "optionalDependencies")
        for name in package.get(group, {})
    }
    assert named <= locked
