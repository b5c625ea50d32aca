"""Do the README's commands do what it says, typed unchanged?

Only the places differ: the home and the runtime directory are the test's, the HTTP port is a free
one. `make demo` has a test of its own; the person who runs the tests types `make test`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import server_processes
from tests.support.daemons import READY_WITHIN_S, ROOT, wait_until
from tests.support.debian import why_missing
from tests.support.readme import shell_blocks
from tests.support.server_processes import ReservedPort

WITHIN_S = 30.0
# Drawing the sample objects takes 6 s of processor time before the daemon starts.
SERVES_WITHIN_S = 60.0


class Reader:
    """A person who types the README's commands into a shell."""

    def __init__(self, folder: Path, runtime_dir: Path) -> None:
        self.port = ReservedPort()
        self.log = folder / "serve.log"
        self._folder = folder
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CACHESVC_", "AWS_"))},
            "HOME": str(folder),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'client'}",
            "CACHESVC_RUNTIME_DIR": str(runtime_dir),
            "CACHESVC_HTTP__LISTEN": f"127.0.0.1:{self.port.number}",
            "CACHESVC_L1__MAX_BYTES": str(256 << 20),
        }

    def serve(self, block: str) -> subprocess.Popen[bytes]:
        """Type a block whose last command is the daemon in the foreground."""
        *before, serve = block.strip().splitlines()
        typed = "\n".join([*before, f"exec {serve}"])
        return server_processes.start(
            ("bash", "-euc", self._here(typed)), self.log, self._environment
        )

    def type(self, line: str) -> str:
        """Type one line into another shell, and return what it prints."""
        done = subprocess.run(
            ["bash", "-c", self._here(line)],
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr, self.log.read_text())
        return done.stdout

    def _here(self, text: str) -> str:
        ours = {"cachesvc": f"{sys.executable} -m cachesvc", "python": sys.executable}
        command = re.sub(r"\.venv/bin/(\w+)", lambda found: ours[found[1]], text)
        return command.replace("localhost:8002", f"localhost:{self.port.number}")


def section(title: str) -> list[str]:
    return shell_blocks(ROOT / "README.md", title)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with tempfile.TemporaryDirectory(prefix="cachesvc-test-", dir="/dev/shm") as runtime:
        reader = Reader(tmp_path, Path(runtime))
        yield reader
        reader.port.release()


@pytest.mark.timeout(120)
def test_the_first_gets_commands_and_the_operators_work_as_they_stand(reader: Reader) -> None:
    if (reason := why_missing("curl")) is not None:
        pytest.skip(reason)
    serve, ask = section("Your first Get")
    (operate,) = section("Watch")
    (token,) = section("Secure")
    process = reader.serve(serve)
    try:
        wait_until(lambda: "serving" in reader.log.read_text(), SERVES_WITHIN_S)
        health, person, tryon = (reader.type(line) for line in ask.splitlines())
        assert health.strip() == "serving"
        assert "human, from origin" in person
        assert "human, from memory" in tryon
        assert "garment, from origin" in tryon
        answers = [reader.type(line) for line in operate.splitlines()]
        assert ["success" in answer for answer in answers[:3]] == [True] * 3
        assert '"caching"' in answers[3]
        assert '"tiers"' in answers[4]
        assert 'roles = ["backend"]' in reader.type(token)
    finally:
        process.terminate()
        assert process.wait(READY_WITHIN_S) == 0, reader.log.read_text()
        server_processes.kill(process)
