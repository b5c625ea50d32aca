"""Does no text tell somebody to install our names from a public index, where anybody may own them?

What is given to pip or npm is a file, a folder, or the name of somebody else's package.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc import __version__
from tests.support.daemons import ROOT

# Texts that a person, a builder or a program reads; tests name bad examples.
PLACES = (
    *("*.md", "Makefile", "Dockerfile", "*.toml", "docs/**/*.md", "client/*.md", ".ci/*"),
    *("bench/*.md", "bench/*.txt", "bench/**/*.py", ".github/**/*.yml", "examples/**/*.md"),
    *("examples/**/*.ts", "examples/**/*.py", "examples/*/package.json", "deploy/**/*"),
    *("cachesvc/**/*.py", "client/cachesvc_*/*.py", "client/*.toml", "*.txt", "*.lock"),
)
INSTALL = re.compile(
    r"\b(?:pip[\d.]*|pipx|uv(?: pip| tool)?|poetry|conda|npm|yarn|pnpm)"
    r"(?: +-\S+)* +(?:install|download|wheel|add|run|i)\b([^\n&|;]*)"
)
WORD = re.compile(r"[^\s'\"`;,()&|]+")
# A bare name of ours, perhaps with an extra or a version; a path has a slash or ends in .whl.
OURS = re.compile(r"@?cachesvc[\w-]*(?:\[[^\]]*\])?(?:[=<>~!@].*)?\.?")
# An extra of a name of ours, also where no command is near.
EXTRA = re.compile(r"(?<![\w./-])cachesvc(?:[-_]client)?\[(?=[a-z,]+\])")
WHEEL = re.compile(r"\bcachesvc(?:_client)?-([\d.]+)-py3")


def texts() -> Iterator[Path]:
    for place in PLACES:
        for path in ROOT.glob(place):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and "node_modules" not in parts and path.suffix != ".pyc":
                yield path


def installed_by_name(text: str) -> list[str]:
    """Return the words by which the text has somebody install a name of ours."""
    words = [
        word
        for command in INSTALL.findall(text.replace("\\\n", " "))
        for word in WORD.findall(command)
        if OURS.fullmatch(word) and not word.endswith(".whl")
    ]
    return words + EXTRA.findall(text)


def test_no_text_tells_to_install_a_name_of_ours_from_an_index() -> None:
    seen = {path.relative_to(ROOT).as_posix(): path.read_text(errors="replace") for path in texts()}
    assert {"README.md", "client/README.md", "Dockerfile", "docs/client.md"} < seen.keys()
    assert len([name for name, text in seen.items() if INSTALL.search(text)]) > 8
    assert {name: found for name, text in seen.items() if (found := installed_by_name(text))} == {}


@pytest.mark.parametrize(
    ("text", "is_by_name"),
    [
        ("pip install 'cachesvc-client[torch]'", True),
        ("pip install -U cachesvc", True),
        ('"pip install cachesvc with its dependencies",', True),
        ("python3 -m pip install --upgrade cachesvc_client==0.1.0", True),
        ("uv add cachesvc-client", True),
        ("npm install @cachesvc/nestjs cachesvc", True),
        ("needs the extra: cachesvc-client[images]", True),
        ("pip install './client[torch,images]' uvicorn", False),
        ("pip install './cachesvc_client-0.1.0-py3-none-any.whl[torch]'", False),
        ("pip install --no-deps . && pip uninstall cachesvc", False),
        ("pip install 'pillow>=10'", False),
    ],
)
def test_a_name_is_told_from_a_file(text: str, is_by_name: bool) -> None:
    assert bool(installed_by_name(text)) is is_by_name


def test_the_wheels_that_texts_name_have_this_version() -> None:
    named = {
        version for path in texts() for version in WHEEL.findall(path.read_text(errors="replace"))
    }
    assert named == {__version__}


@pytest.mark.parametrize(
    ("module", "absent", "what"),
    [
        ("cachesvc_client._images", "PIL", "pip install pillow"),
        ("cachesvc_client._numpy", "numpy", "pip install numpy"),
        ("cachesvc_client._torch", "torch", "pip install torch"),
        ("cachesvc_client.fastapi", "fastapi", "pip install fastapi"),
    ],
)
def test_an_import_error_says_what_to_install(module: str, absent: str, what: str) -> None:
    code = f"import sys; sys.modules[{absent!r}] = None; import {module}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "client",
        capture_output=True,
        text=True,
        check=False,
    )
    *_, said = done.stderr.strip().splitlines()
    assert said.startswith("ImportError: ")
    assert what in said
    assert f"its extra [{module.rpartition('.')[2].removeprefix('_')}]" in said
