"""Which server stands in for S3 without Ceph? moto's, in a process of its own.

It checks no signature, and loses everything when it is stopped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import server_processes
from tests.support.server_processes import ReservedPort


class MotoServer:
    """The same methods as `CephGateway`, but empty after `start_serving`."""

    kind = "moto"
    access_key = "moto"
    secret_key = "moto-checks-no-signature"
    region = "us-east-1"

    def __init__(self, folder: Path) -> None:
        self._log = folder / "moto.log"
        self._port = ReservedPort()
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint_url = f"http://127.0.0.1:{self._port.number}"

    def start(self) -> None:
        self.start_serving()

    def start_serving(self) -> None:
        port = str(self._port.number)
        self._process = server_processes.start(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port],
            self._log,
            # A developer's own AWS profile must not change the tests.
            env={**os.environ, "AWS_CONFIG_FILE": os.devnull},
        )
        server_processes.wait_until_http_answers(self.endpoint_url, self._process, self._log)

    def stop_serving(self) -> None:
        if self._process is not None:
            server_processes.kill(self._process)

    def close(self) -> None:
        self.stop_serving()
        self._port.release()
