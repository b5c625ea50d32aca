"""How is a real Prometheus run for a test, scraping a daemon, with the rules of `deploy/`?"""

from __future__ import annotations

import json
import re
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
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"\[(\d+[smhd])\]")


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


def shortened(rules: dict[str, Any], by: int) -> dict[str, Any]:
    """Return the rules with every `for` and every window divided by `by`, and nothing else."""

    def seconds(duration: str) -> str:
        number, unit = int(duration[:-1]), duration[-1]
        return f"{number * _UNIT_S[unit] * 1000 // by}ms"

    groups = []
    for group in rules["groups"]:
        made = []
        for rule in group["rules"]:
            expr = _WINDOW.sub(lambda found: f"[{seconds(found[1])}]", rule["expr"])
            wait = {"for": seconds(rule["for"])} if "for" in rule else {}
            made.append({**rule, "expr": expr, **wait})
        groups.append({**group, "rules": made})
    return {"groups": groups}


class Prometheus:
    """A server that scrapes targets (host:port) with the shipped configuration.

    `shortened_by` makes the rules' windows and waits that much shorter.
    """

    def __init__(self, folder: Path, *targets: str, shortened_by: int = 1) -> None:
        self._folder = folder
        self._port = ReservedPort()
        self._targets = list(targets)
        self._shortened_by = shortened_by
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        shipped = yaml.safe_load((RULES / "prometheus.yml").read_text())
        (job,) = shipped["scrape_configs"]
        del job["static_configs"]
        job["file_sd_configs"] = [{"files": [str(self._target_file)]}]
        job["scrape_timeout"] = _INTERVAL
        shipped["global"] = {"scrape_interval": _INTERVAL, "evaluation_interval": _INTERVAL}
        shipped["rule_files"] = [str(self._rules(name)) for name in shipped["rule_files"]]
        self._write_targets()
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

    def add(self, target: str) -> None:
        """Scrape one more target from now on; return after its first scrape."""
        self._targets.append(target)
        self._write_targets()
        wait_until(lambda: self.query(f'up{{instance="{target}"}}') == [1.0], _TIMEOUT_S)

    @property
    def _target_file(self) -> Path:
        return self._folder / "targets.json"

    def _write_targets(self) -> None:
        fresh = self._target_file.with_suffix(".new")
        fresh.write_text(json.dumps([{"targets": self._targets}]))
        fresh.rename(self._target_file)

    def _rules(self, name: str) -> Path:
        if self._shortened_by == 1:
            return RULES / name
        rules = shortened(yaml.safe_load((RULES / name).read_text()), self._shortened_by)
        path = self._folder / name
        path.write_text(yaml.safe_dump(rules, width=10_000))
        return path

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

    def alerts(self, state: str, instance: str = "") -> set[str]:
        """Return the alerts that are `firing`, or `pending` until their `for` is over.

        An `instance` is a target; without it, the alerts are those of all targets.
        """
        return {
            alert["labels"]["alertname"]
            for alert in self._get("alerts")["alerts"]
            if alert["state"] == state and instance in ("", alert["labels"]["instance"])
        }

    def fired(self, instance: str) -> set[str]:
        """Return the alerts of a target that were firing at any time."""
        series = f'ALERTS{{alertstate="firing", instance="{instance}"}}[1d]'
        result = self._get("query", query=f"count_over_time({series})")["result"]
        return {found["metric"]["alertname"] for found in result}

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self._port.number}/api/v1/{what}?"
        with urllib.request.urlopen(url + urllib.parse.urlencode(parameters), timeout=10) as answer:
            body = json.load(answer)
        assert body["status"] == "success", body
        return body["data"]


@contextmanager
def running_prometheus(folder: Path, *targets: str, shortened_by: int = 1) -> Iterator[Prometheus]:
    prometheus = Prometheus(folder, *targets, shortened_by=shortened_by)
    try:
        prometheus.start()
        yield prometheus
    finally:
        prometheus.close()
