"""Does `cachesvc verify` find damage, with and without a running daemon, and disturb nothing?

Promise 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachesvc_proto.v1 import cache_pb2 as pb
from tests.cli.conftest import Run
from tests.support import sample_objects
from tests.support.daemons import Daemon, running_daemon
from tests.support.grpc_calls import get_human
from tests.support.sample_objects import Sample, fresh_id, put_in_folder


@pytest.fixture(scope="module")
def own_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for this file alone, because verify reads all of its L2."""
    folder = tmp_path_factory.mktemp("verified")
    with running_daemon(folder, {"KINDS__HUMAN__MAX_ENTRIES": "1"}, is_forked=True) as daemon:
        yield daemon


@pytest.fixture
def stocked(
    own_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, run_alone: Run
) -> Iterator[Daemon]:
    """A daemon whose L1 holds at most one person; the command has its settings."""
    for name, value in own_daemon.settings.items():  # after run_alone, which clears our settings
        monkeypatch.setenv(f"CACHESVC_{name}", value)
    yield own_daemon
    own_daemon.admin_stub().Invalidate(pb.InvalidateRequest(everything=True, erase=True))
    for file in (own_daemon.l2_root / ".quarantine").iterdir():
        file.unlink()


def fill(daemon: Daemon, count: int = 3) -> dict[str, Sample]:
    people = {user: sample_objects.person(user) for user in (fresh_id("u") for _ in range(count))}
    put_in_folder(daemon.origin_dir, *people.values())
    for user in people:
        get_human(daemon.stub(), user)
    daemon.wait_until_stored()
    return people


def file_of(daemon: Daemon, user: str) -> Path:
    (path,) = (daemon.l2_root / "human_upper_body" / user).iterdir()
    return path


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_sound_l2_is_code_0_and_stays_as_it_is(run_alone: Run, stocked: Daemon) -> None:
    fill(stocked)
    before = stocked.l2_files()
    done = run_alone("verify", "--json", "--quarantine")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["checked"], found["intact"], found["bad"]) == (3, 3, [])
    assert found["checked_bytes"] == sum(path.stat().st_size for path in before)
    assert stocked.l2_files() == before


def test_damage_is_named_and_left_alone_without_quarantine(run_alone: Run, stocked: Daemon) -> None:
    evicted, *_ = fill(stocked)
    path = file_of(stocked, evicted)
    damage(path)
    done = run_alone("verify")
    assert done.exit_code == 1
    assert f"human_upper_body/{evicted}: damaged" in done.stdout
    assert "--quarantine" in done.stderr
    assert path.exists()


def test_quarantine_beside_a_daemon_costs_a_refill_and_nothing_else(
    run_alone: Run, stocked: Daemon
) -> None:
    people = fill(stocked)
    evicted, other, _ = people
    damage(file_of(stocked, evicted))
    done = run_alone("verify", "--quarantine", "--json")
    assert done.exit_code == 1
    (bad,) = json.loads(done.stdout)["bad"]
    assert (bad["id"], bad["verdict"], bad["quarantined"]) == (evicted, "damaged", True)
    assert len(list((stocked.l2_root / ".quarantine").iterdir())) == 1
    refilled = get_human(stocked.stub(), evicted)
    assert refilled.info.tier == pb.TIER_ORIGIN
    assert people[evicted].matches(refilled.tensors)
    assert get_human(stocked.stub(), other).info.tier == pb.TIER_DISK
    stocked.wait_until_stored()
    assert run_alone("verify").exit_code == 0


def test_a_daemon_that_was_killed_is_verified_and_starts_afterwards(
    run_alone: Run, stocked: Daemon
) -> None:
    """Rows that are only in the catalog's log are verified too."""
    people = fill(stocked)
    first, *_ = people
    stocked.kill()
    damage(file_of(stocked, first))
    done = run_alone("verify", "--quarantine", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["checked"] == 3
    stocked.start()
    assert get_human(stocked.stub(), first).info.tier == pb.TIER_ORIGIN


def test_what_a_clean_up_took_is_missing_and_code_0(run_alone: Run, stocked: Daemon) -> None:
    first, *_ = fill(stocked)
    file_of(stocked, first).unlink()
    done = run_alone("verify", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["missing"] == 1


def test_a_wrong_state_directory_is_code_2(
    run_alone: Run, stocked: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CACHESVC_STATE_DIR", str(tmp_path))
    refused = run_alone("verify")
    assert refused.exit_code == 2
    assert "CACHESVC_STATE_DIR" in refused.stderr
