"""Does the exit code of `cachesvc import-v2` say what became of the entries, and does a dry run
predict it?

Each test asks both of a daemon of its own. Promises 1 and 5.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.cli.conftest import Run
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, floor_of_the_whole_disk
from tests.support.v2_directories import V2

OWNER = "shop"


class Import:
    """Runs the command with one daemon's settings."""

    def __init__(self, run: Run, daemon: Daemon, v2: V2, patch: pytest.MonkeyPatch) -> None:
        for name, value in daemon.settings.items():
            patch.setenv(f"CACHESVC_{name}", value)
        self._run = run
        self.v2 = v2

    def __call__(self, *options: str, code: int) -> tuple[Any, str]:
        """Return the JSON and the message."""
        arguments = ("import-v2", str(self.v2.root), "--owner", OWNER, "--json", *options)
        done = self._run(*arguments)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout), done.stderr

    def foretold(self, code: int) -> tuple[Any, str]:
        """Run it dry, then for good; return what both said."""
        foretold = self("--dry-run", code=code)
        done = self(code=code)
        assert done == foretold
        return done


@pytest.fixture
def importing(
    run_alone: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Daemon], Import]:
    return lambda daemon: Import(run_alone, daemon, V2(tmp_path / "v2"), monkeypatch)


def write_garments(v2: V2, count: int) -> list[str]:
    names = [f"g{n}" for n in range(count)]
    for name in names:
        v2.write("garment", name, sample_objects.garment(name, OWNER))
    return names


def test_after_a_kill_nothing_is_adopted_and_both_runs_say_why_and_what_to_do(
    new_daemon: NewDaemon, importing: Callable[[Daemon], Import]
) -> None:
    daemon = new_daemon(is_forked=False)
    run = importing(daemon)
    write_garments(run.v2, 2)
    daemon.restart()  # SIGKILL

    shown, message = run.foretold(code=1)

    assert shown["namespaces"] == {"garment": {"changes_unknown": 2}}
    detail = shown["skipped"][0]["detail"]
    assert "the daemon before this one was killed" in detail
    assert "last change of this" not in detail
    assert "empty l2.root and state_dir" in message

    # The cause stays known over a start after a clean end.
    daemon.stop()
    daemon.start()
    shown, _ = run.foretold(code=1)
    assert shown["namespaces"] == {"garment": {"changes_unknown": 2}}

    # What the message says to do helps.
    daemon.stop()
    for directory in (daemon.l2_root, Path(daemon.settings["STATE_DIR"])):
        shutil.rmtree(directory)
        directory.mkdir()
    daemon.start()
    assert run(code=0)[0]["namespaces"] == {"garment": {"adopted": 2}}


def test_what_the_daemon_refuses_is_refused_in_the_dry_run_too(
    new_daemon: NewDaemon, importing: Callable[[Daemon], Import]
) -> None:
    daemon = new_daemon(LIMITS__MAX_ENTRY_BYTES="100000")
    run = importing(daemon)
    invalidated, kept, large = write_garments(run.v2, 3)
    big = sample_objects.garment(large, OWNER, sizes=sample_objects.REAL)
    shutil.rmtree(run.v2.root / "garment" / large)
    run.v2.write("garment", large, big)
    daemon.stub().Invalidate(pb.InvalidateRequest(clothing_id=invalidated))
    shown, _ = run.foretold(code=0)
    assert shown["namespaces"] == {"garment": {"outdated": 1, "adopted": 1, "too_large": 1}}
    # A second run finds nothing left to do.
    assert run(code=0)[0]["namespaces"]["garment"]["present"] == 1
    assert [tier.tier for tier in inspected(daemon, kept)] == [pb.TIER_MEMORY, pb.TIER_DISK]


def test_where_l2_has_no_room_an_entry_in_memory_alone_does_not_count_as_adopted(
    new_daemon: NewDaemon, importing: Callable[[Daemon], Import]
) -> None:
    floor = floor_of_the_whole_disk()
    daemon = new_daemon(L2__FREE_FLOOR_BYTES=str(floor))
    run = importing(daemon)
    write_garments(run.v2, 2)
    shown, message = run.foretold(code=1)
    assert shown["namespaces"] == {"garment": {"no_room": 2}}
    assert "free space on the disk of l2.root" in message


def test_a_dry_run_says_that_nothing_was_stored(
    new_daemon: NewDaemon,
    importing: Callable[[Daemon], Import],
    run_alone: Run,
) -> None:
    daemon = new_daemon()
    run = importing(daemon)
    (name,) = write_garments(run.v2, 1)
    said = run_alone("import-v2", str(run.v2.root), "--owner", OWNER, "--dry-run")
    assert said.exit_code == 0, said.output
    assert "would be stored" in said.stdout
    assert inspected(daemon, name) == []


def inspected(daemon: Daemon, name: str) -> list[pb.InspectedTier]:
    key = pb.EntryKey(namespace="garment", id=name)
    return list(daemon.stub().Inspect(pb.InspectRequest(key=key)).tiers)
