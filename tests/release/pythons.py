"""Which Pythons does this machine have, and what is installed into an environment of each?

Nothing of the checkout is importable there: the folder is another one, and no variable of Python's
is passed on.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLIENT_SINCE = (3, 10)
DAEMON_SINCE = (3, 11)
WANTED = ("3.10", "3.11", "3.12", "3.13")
COMMAND_WITHIN_S = 600
_TAIL = 3000
_ASK = """
import ensurepip, json, platform, sys, venv
print(json.dumps([sys.version_info[:2], platform.python_version()]))
"""
# Prints where a distribution was installed from: pip notes it for files and folders only.
_ORIGIN = """
import sys
from importlib.metadata import distribution
for name in sys.argv[1:]:
    print(distribution(name).read_text("direct_url.json") or "{}")
"""


class Failed(Exception):
    """Something does not hold; the text says what, with the end of the command's output."""


@dataclass(frozen=True)
class Python:
    """An interpreter that can make virtual environments."""

    path: Path
    minor: tuple[int, ...]
    version: str


def find(asked: Sequence[str]) -> Iterator[Python | str]:
    """Yield each Python that was asked for, a version or a path, or why it is skipped."""
    for name in asked:
        found: Python | str = f"Python {name} is skipped: it was not found"
        for path in _candidates(name):
            found = _look_at(path)
            if isinstance(found, Python):
                break
        yield found


def _candidates(name: str) -> Iterator[Path]:
    if "/" in name:
        yield Path(name)
        return
    for folder in os.get_exec_path():
        if (path := Path(folder, f"python{name}")).exists():
            yield path
    # Pyenv's shims answer only for the versions that are switched on.
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from pyenv.glob(f"versions/{name}.*/bin/python{name}")


def _look_at(path: Path) -> Python | str:
    # Debian's Python, for example, has no ensurepip without python3-venv.
    command = (str(path), "-I", "-c", _ASK)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return f"{path} is skipped: {last}"
    minor, version = json.loads(done.stdout)
    return Python(path, tuple(minor), version)


def run(
    command: Sequence[str | Path],
    *,
    within_s: float = COMMAND_WITHIN_S,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Return what the command printed; Failed if it does not end with 0."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=within_s
    )
    if done.returncode:
        output = f"{done.stdout}\n{done.stderr}".strip()[-_TAIL:]
        raise Failed(f"{' '.join(words)} ended with {done.returncode}:\n{output}")
    return done.stdout


class Environment:
    """A new virtual environment at `folder/.venv`.

    The tools' environment has pip, and installs into the others, so that pip is unpacked once.
    """

    def __init__(self, python: Python, folder: Path, tools: Environment | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.bin = folder / ".venv/bin"
        self._pip = (tools or self).bin / "python", "-I", "-m", "pip"
        self._outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        without = ("--without-pip",) if tools else ()
        run((python.path, "-I", "-m", "venv", *without, folder / ".venv"))

    def pip(self, *arguments: str | Path) -> str:
        options = ("--disable-pip-version-check", "--python", self.bin / "python")
        return run((*self._pip, *options, *arguments), cwd=self.folder, env=self._outside)

    def install(self, *arguments: str | Path) -> None:
        # Compiling everything takes longer than the rest; Python compiles what it imports.
        self.pip("install", "--quiet", "--no-compile", *arguments)
        self.pip("check")

    def run(self, code: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a text of Python; nothing but the environment's packages can be imported."""
        command = (self.bin / "python", "-I", "-c", code, *arguments)
        return run(command, cwd=self.folder, env={**self._outside, **(env or {})})

    def must_have_from_files(self, *names: str) -> None:
        """Fail if a package of ours came from an index instead of from our files."""
        for name, line in zip(names, self.run(_ORIGIN, *names).splitlines(), strict=True):
            if not str(json.loads(line).get("url", "")).startswith("file://"):
                raise Failed(f"pip took {name} from an index, not from our files: {line}")
