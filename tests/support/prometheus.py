"""How is a real Prometheus run for a test, scraping a daemon, with the rules of `deploy/`?"""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import debian, server_processes
from tests.support.daemons import wait_until
from tests.support.server_processes import ReservedPort

RULES = Path(__file__).parents[2] / "deploy/prometheus"
_TIMEOUT_S = 50
# A rate needs two scrapes, and a test does not wait 15 s for each.
_INTERVAL = "250ms"


def require_prometheus() -> None:
    """Skip the test, naming the missing program."""
    reason = debian.why_missing("prometheus", "promtool")
    if reason is not None:
        pytest.skip(reason)


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Return promtool's output. Fails if promtool found a fault."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)],
        input=text,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


class Prometheus:
    """A server that scrapes `target` (host:port) with the shipped configuration."""

    def __init__(self, folder: Path, target: str) -> None:
        self._folder = folder
        self._port = ReservedPort()
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        shipped = yaml.safe_load((RULES / "prometheus.yml").read_text())
        (job,) = shipped["scrape_configs"]
        job["static_configs"] = [{"targets": [self._target]}]
        job["scrape_timeout"] = _INTERVAL
        shipped["global"] = {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL}
        shipped["rule_files"] = [str(RULES / name) for name in shipped["rule_files"]]
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(shipped))
        address = f"127.0.0.1:{self._port.number}"
        log = self._folder / "prometheus.log"
        self._process = server_processes.start(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={self._folder / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            log,
        )
        server_processes.wait_until_http_answers(f"http://{address}/-/ready", self._process, log)
        wait_until(self._answers, _TIMEOUT_S, lambda: server_processes.log_tail(log))

    def close(self) -> None:
        if self._process is not None:
            server_processes.kill(self._process)
        self._port.release()

    def _answers(self) -> bool:
        """Return whether it has loaded its (empty) storage: until then every answer is 503."""
        try:
            return self.query("vector(1)") == [1.0]
        except urllib.error.HTTPError as exc:
            exc.close()
            return False

    def query(self, expression: str) -> list[float]:
        """Return the values of an instant query, one for each series."""
        result = self._get("query", query=expression)["result"]
        return [float(series["value"][1]) for series in result]

    def alerts(self, state: str) -> set[str]:
        """Return the alerts that are `firing`, or `pending` until their `for` is over."""
        alerts = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == state}

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port.number}/api/v1/{what}?"
        with urllib.request.urlopen(url + urllib.parse.urlencode(parameters), timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]


@contextmanager
def running_prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    prometheus = Prometheus(folder, target)
    try:
        prometheus.start()
        yield prometheus
    finally:
        prometheus.close()
