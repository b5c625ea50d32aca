"""Does an installed daemon serve the README's first Get, and an installed client get from it?

The README's commands are typed unchanged. The folder has the environment at `.venv`, and the demo's
sample data; the home is the folder, and port and L1's size are the test's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.release.pythons import Environment, Failed, run
from tests.support.readme import shell_blocks
from tests.support.server_processes import ReservedPort

SERVES_WITHIN_S = 120.0
_POLL_S = 0.1
_SHELL = ("bash", "-euo", "pipefail", "-c")

# A client without any extra gets the bytes and says what an extra would have brought.
BARE_CLIENT = """
from cachesvc_client import CacheClient
with CacheClient() as cache:
    human = cache.get_human("demo-person")
    assert len(human) == 4, list(human)
    for read, missing in ((human.numpy, "numpy"), (lambda: human.image("mask"), "Pillow")):
        try:
            read()
        except ImportError as exc:
            assert "pip install" in str(exc), exc
            assert missing in str(exc), exc
        else:
            raise AssertionError(f"it could be read without {missing}")
"""
CLIENT = """
import sys
import numpy, PIL
from cachesvc_client import CacheClient
with CacheClient() as cache:
    tryon = cache.get_tryon("demo-person", "outfit-01")
    image = tryon.human.image("human_img")
    assert (image.mode, image.size) == ("RGB", (768, 1024)), image
    assert tryon.human.numpy()["pose_tensor"].shape == (1, 3, 1024, 768)
    assert tryon.human.is_current()
    assert cache.transport == "shared_file", cache.transport
print(f"numpy {numpy.__version__}, Pillow {PIL.__version__}")
"""
# The README's worker: {block} is its text.
WORKER = """
from types import SimpleNamespace
{block}
job = SimpleNamespace(user_id="demo-person", clothing_id="outfit-01", category="upper_body",
                      owner_id="demo-person", photo_changed_at=None)
picture = try_on(job, lambda **inputs: sorted(inputs), "cpu")
assert "pose_img" in picture, picture
"""


class Daemon:
    """The README's reader: a daemon in one shell, commands in another."""

    def __init__(self, environment: Environment, readme: Path, runtime: Path, port: int) -> None:
        self._folder = environment.folder
        self._serve, self._ask = shell_blocks(readme, "Your first Get")
        kept = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE")
        self.variables = {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "HOME": str(self._folder),
            "CACHESVC_RUNTIME_DIR": str(runtime),
            "CACHESVC_HTTP__LISTEN": f"127.0.0.1:{port}",
            "CACHESVC_L1__MAX_BYTES": str(256 << 20),
        }
        self._log = self._folder / "serve.log"

    @contextmanager
    def serving(self) -> Iterator[None]:
        *before, serve = self._serve.strip().splitlines()
        # The commands of the other shell have the settings too.
        self.variables |= self._exported(before)
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                (*_SHELL, "\n".join([*before, f"exec {serve}"])),
                cwd=self._folder,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait(process)
            yield
            process.send_signal(signal.SIGTERM)
            if (code := process.wait(SERVES_WITHIN_S)) != 0:
                raise Failed(f"the daemon ended with {code}:\n{self._log.read_text()[-2000:]}")
        finally:
            process.kill()
            process.wait()

    def type(self, line: str) -> str:
        return run((*_SHELL, line), cwd=self._folder, env=self.variables)

    def questions(self) -> list[str]:
        """Return the README's commands for the other shell."""
        return self._ask.strip().splitlines()

    def _exported(self, lines: list[str]) -> dict[str, str]:
        found = re.findall(r"(CACHESVC_\w+)=(\S+)", "\n".join(lines))
        return {name: value.replace("$HOME", str(self._folder)) for name, value in found}

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + SERVES_WITHIN_S
        while "serving" not in self._log.read_text():
            if process.poll() is not None or time.monotonic() > give_up:
                raise Failed(f"the daemon does not serve:\n{self._log.read_text()[-2000:]}")
            time.sleep(_POLL_S)


@contextmanager
def daemon_of(environment: Environment, checkout: Path) -> Iterator[Daemon]:
    """Start the environment's daemon as the README says, with the demo's objects."""
    shutil.copytree(checkout / "examples/demo", environment.folder / "examples/demo")
    port = ReservedPort()
    with tempfile.TemporaryDirectory(prefix="cachesvc-release-", dir="/dev/shm") as runtime:
        daemon = Daemon(environment, checkout / "README.md", Path(runtime), port.number)
        try:
            with daemon.serving():
                yield daemon
        finally:
            port.release()


def ask(daemon: Daemon) -> None:
    """Type the README's commands, and check what they say."""
    answers = [daemon.type(line) for line in daemon.questions()]
    said = "\n".join(answers)
    for each in ("serving", "human, from origin", "human, from memory", "garment, from origin"):
        if each not in said:
            raise Failed(f"the README's first Get does not say {each!r}:\n{said}")
    daemon.type(".venv/bin/cachesvc doctor")


def worker(readme: Path) -> str:
    """Return the README's worker as a program."""
    text = readme.read_text()
    block = re.search(r"^## Connect a worker\n.*?^```python\n(.*?)^```", text, re.M | re.S)
    assert block is not None
    return WORKER.format(block=block[1])
