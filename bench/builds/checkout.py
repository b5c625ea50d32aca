"""A checkout of the product, run with its own code and no other checkout's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("cachesvc", "cachesvc_client")
_ASK = "import importlib.util as u; print(*(u.find_spec(name).origin for name in {}), sep='\\n')"


@dataclass(frozen=True)
class Checkout:
    """A checkout. Its `.venv` runs it if it has one, otherwise this Python."""

    root: Path

    def popen_options(self, settings: Mapping[str, str]) -> dict[str, Any]:
        """Return Popen's options: a daemon's settings, and the paths of this checkout's code.

        `python -m` puts the working directory before PYTHONPATH, so the checkout must be both. Its
        bytecode is kept, as an installed package's is.
        """
        environment = {
            **os.environ,
            **{f"CACHESVC_{name}": value for name, value in settings.items()},
            "PYTHONPATH": os.pathsep.join((str(self.root), str(self.root / "client"))),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return {"cwd": self.root, "env": environment}

    @property
    def python(self) -> str:
        own = self.root / ".venv/bin/python"
        return str(own) if own.exists() else sys.executable

    def check(self) -> None:
        """End the program if this checkout's Python would run another checkout's code."""
        command = (self.python, "-c", _ASK.format(PACKAGES))
        options = self.popen_options({})
        found = subprocess.run(command, **options, text=True, capture_output=True, check=False)
        if found.returncode:
            raise SystemExit(f"{self.root} does not run:\n{found.stderr}")
        for path in found.stdout.splitlines():
            if not Path(path).is_relative_to(self.root):
                raise SystemExit(f"the build in {self.root} would run {path}")
