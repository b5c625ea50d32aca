"""Do V2's own lines, as docs/migrating-from-v2.md has them, work unchanged?

The Python is compiled unchanged. In the commands only the places are the test's: the directory of
L2, and the two ports.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc_client.v2 import TwoLevelCacheV2
from tests.docs.test_examples import run
from tests.support import sample_objects, server_processes
from tests.support.daemons import ROOT, Daemon, running_daemon
from tests.support.debian import why_missing
from tests.support.server_processes import ReservedPort

PAGE = ROOT / "docs/migrating-from-v2.md"
WITHIN_S = 30.0
TOOLS = ("curl", "du", "find")
USER, COAT = "user123", "item456"
THE_ARGUMENTS_GO_NOWHERE = "ignore:TwoLevelCacheV2 no longer uses these:DeprecationWarning"


def section() -> str:
    (body,) = re.findall(r"^## V2's own lines\n(.*?)(?=^## )", PAGE.read_text(), re.M | re.DOTALL)
    return str(body)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(), re.M | re.DOTALL)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for this file alone, because these lines clear everything."""
    with running_daemon(tmp_path_factory.mktemp("v2"), is_forked=True) as running:
        yield running


@pytest.fixture(scope="module")
def server(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The old server in a process of its own; yields its port."""
    folder, port = tmp_path_factory.mktemp("server"), ReservedPort()
    document, _, _, app = blocks("python")
    (folder / "v2_server.py").write_text(f"{document}\n\n{app}")
    log = folder / "log"
    process = server_processes.start(
        [sys.executable, "-m", "uvicorn", "v2_server:app", "--port", str(port.number)],
        log,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "client", folder))),
            "CACHESVC_GRPC__SOCKET": str(daemon.socket),
        },
    )
    try:
        server_processes.wait_until_http_answers(f"http://127.0.0.1:{port.number}/", process, log)
        yield port.number
    finally:
        server_processes.kill(process)
        port.release()


@pytest.mark.filterwarnings(THE_ARGUMENTS_GO_NOWHERE)
@pytest.mark.parametrize("spelling", ["document", "repository"])
async def test_v2s_calls_do_what_they_did_in_both_spellings(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.setenv("CACHESVC_GRPC__SOCKET", str(daemon.socket))
    document, repository, calls, _ = blocks("python")
    names: dict[str, Any] = {
        "human": sample_objects.person(USER).values,
        "garment": sample_objects.garment(COAT, USER).values,
        "text": sample_objects.text(COAT, USER).values,
    }
    await run(document, names)
    if spelling == "repository":
        await run(repository, names)
    await run(calls, names)
    for given, found in (("human", "human_data"), ("garment", "garment_data")):
        assert names[given].keys() == names[found].keys()
    assert names["text_data"].keys() == names["text"].keys()
    assert await names["cache"].get_human(USER) is None
    await names["cache"].aclose()


def typed(command: str, daemon: Daemon, port: int) -> str:
    """Type one line into a shell, and return what it prints."""
    here = command.replace("/opt/dlami/nvme/vton-cache", str(daemon.l2_root))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", here.replace("localhost:8001", f"127.0.0.1:{port}")],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 0, (here, done.stdout, done.stderr)
    return done.stdout


def command_lines() -> list[str]:
    (commands,) = blocks("sh")
    return commands.splitlines()


@pytest.mark.parametrize("whose", ["server", "daemon"])
def test_v2s_commands_work_on_the_servers_port_and_on_the_daemons(
    daemon: Daemon, server: int, whose: str
) -> None:
    if (reason := why_missing(*TOOLS)) is not None:
        pytest.skip(reason)
    port = server if whose == "server" else daemon.http_port
    old = TwoLevelCacheV2(target=daemon.target)
    old.put_human(USER, "upper_body", sample_objects.person(USER).values)
    old.put_garment(COAT, sample_objects.garment(COAT, USER).values)
    health, human, garment, everything, warmup, du, count, old_files = command_lines()

    said = json.loads(typed(health, daemon, port))
    as_written = json.loads(blocks("json")[0])
    assert same_types(as_written, {name: said[name] for name in as_written})
    assert said["caching"] == as_written["caching"]
    assert typed(count, daemon, port).split() == ["1"]
    for line in (human, garment, everything, warmup):
        assert json.loads(typed(line, daemon, port))["status"] == "success"
    assert old.get_stats()["l1_entries"] == 0
    assert typed(du, daemon, port).endswith(f"{daemon.l2_root}\n")
    assert typed(old_files, daemon, port) == ""
    old.close()


def same_types(known: Any, found: Any) -> bool:
    """Return whether `found` has every key of `known`, with a value of the same type."""
    if isinstance(known, dict):
        return all(same_types(value, found[name]) for name, value in known.items())
    return type(known) is type(found)


def test_the_readers_of_the_rates_get_two_decimals(daemon: Daemon) -> None:
    old = TwoLevelCacheV2(target=daemon.target)
    rates = [old.get_stats()[name] for name in ("l1_hit_rate", "l2_hit_rate", "hit_rate")]
    old.close()
    assert all(isinstance(rate, float) and rate == round(rate, 2) for rate in rates)


def test_the_import_is_the_one_line_of_the_section_that_names_this_package() -> None:
    python = "".join(blocks("python"))
    assert re.findall(r".*cachesvc.*", python) == ["from cachesvc_client.v2 import TwoLevelCacheV2"]


def test_a_place_that_the_test_replaces_is_in_the_commands() -> None:
    assert [line for line in command_lines() if "8001" not in line and "/opt/" not in line] == []
    assert Path("/opt/dlami/nvme/vton-cache").as_posix() in section()
