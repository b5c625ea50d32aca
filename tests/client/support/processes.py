"""Server processes that a test may kill at any moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType

SCRIPT = Path(__file__).with_name("serve.py")


class ServerProcess:
    """Runs `serve.py` and waits until it listens. The server holds the person `u1`."""

    def __init__(self, socket: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(socket), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": ".:client"},
        )
        self.wait_for("ready")

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def wait_for(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word

    def kill(self) -> None:
        """End the server with SIGKILL: its connections break, and its socket stays."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
