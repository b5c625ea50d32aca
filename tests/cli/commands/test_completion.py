"""Do a shell's completion and `version` list what exists?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cachesvc import __version__
from cachesvc.revision import checkout_revision
from tests.cli.conftest import Run, environment
from tests.support.daemons import ROOT


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`cachesvc` as installed: a script of that name in the PATH."""
    script = tmp_path / "cachesvc"
    script.write_text(f"#!{sys.executable}\nfrom cachesvc.cli.main import main\nmain()\n")
    script.chmod(0o755)
    return script


def test_bash_completes_commands_by_the_printed_script(program: Path) -> None:
    asking = (
        'eval "$(cachesvc completion bash)"; COMP_WORDS=(cachesvc hea); COMP_CWORD=1; '
        '_cachesvc_completion cachesvc; echo "${COMPREPLY[@]}"'
    )
    found = environment({})
    found["PATH"] = f"{program.parent}:{found['PATH']}"
    done = subprocess.run(
        ["bash", "-c", asking], env=found, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "health\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shells_script_asks_this_program(run_alone: Run, shell: str) -> None:
    printed = run_alone("completion", shell)
    assert printed.exit_code == 0
    assert "_CACHESVC_COMPLETE=" in printed.stdout
    assert "cachesvc" in printed.stdout


def test_an_unknown_shell_is_wrong_usage(run_alone: Run) -> None:
    assert run_alone("completion", "csh").exit_code == 2


def test_version_as_json_names_the_contract_and_each_library(run_alone: Run) -> None:
    shown = json.loads(run_alone("version", "--json").stdout)
    assert shown["version"] == __version__
    assert shown["contract"] == "cachesvc.v1"
    assert all(shown["libraries"].values())


def test_version_names_everything_that_decides_about_a_fault(run_alone: Run) -> None:
    shown = json.loads(run_alone("version", "--json").stdout)
    assert shown["formats"].keys() == {"blob", "catalog", "control_page"}
    for name in ("python", "sqlite", "openssl", "protobuf_in", "platform", "libc"):
        assert shown[name], name
    # Every library that the daemon asks for, and S3's own below aioboto3.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[<>=]", line)[0] for line in project["dependencies"]} | {"botocore"}
    assert wanted <= shown["libraries"].keys()
    text = run_alone("version").stdout
    for value in (shown["revision"], shown["sqlite"], shown["platform"]):
        assert value in text


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_version_in_a_checkout_names_its_commit(run_alone: Run) -> None:
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = json.loads(run_alone("version", "--json").stdout)["revision"]
    assert found.removesuffix("-changed") == commit


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert checkout_revision(tmp_path) is None
    # A folder inside another project's checkout.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert checkout_revision(tmp_path) is None


def test_version_for_people_starts_with_the_version(run_alone: Run) -> None:
    assert run_alone("version").stdout.startswith(f"cachesvc {__version__}\n")
