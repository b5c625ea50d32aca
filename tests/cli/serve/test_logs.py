"""Does a log line leave out the values that the failing code worked on?"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import RunApart
from tests.support.daemons import ROOT

FAILS = """
import logging, structlog
from cachesvc.cli.serve import logs
logs.configure({log_format!r}, "info")

def fill(user_id):
    raise RuntimeError("no room")

try:
    fill("-".join(("secret", "person")))
except RuntimeError:
    structlog.get_logger().exception("fill_failed")
    logging.getLogger("library").exception("failed")
logging.getLogger("botocore").info("GET /users/somebody")
structlog.get_logger().debug("too fine")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_variable(run_apart: RunApart, log_format: str) -> None:
    log = run_apart("--version", before=FAILS.format(log_format=log_format)).stderr
    assert log.count("no room") >= 2
    assert "secret-person" not in log


def test_lines_are_json_objects_of_our_level_and_libraries_warnings(run_apart: RunApart) -> None:
    log = run_apart("--version", before=FAILS.format(log_format="json")).stderr
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines] == ["fill_failed", "failed"]
    assert {line["level"] for line in lines} == {"error"}
    assert all(line["timestamp"] for line in lines)


def test_a_line_that_cannot_be_written_is_lost_and_the_work_goes_on() -> None:
    """Promise 5: a full disk behind the log fails no Put, and stops no invalidation's retries."""
    code = """
import structlog
from cachesvc.cli.serve import logs
logs.configure("json", "info")
for _ in range(1_000):
    structlog.get_logger().error("invalidation_not_durable", why="x" * 100)
print("went on", flush=True)
"""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            timeout=30,
        )
    assert ended.stdout == "went on\n"
