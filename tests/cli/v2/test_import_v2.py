"""Does `cachesvc import-v2` adopt V2's entries, and only those that may be served?

The original's own libraries write V2's directory; a real daemon stores the entries. Promises 1 and
7.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cachesvc.core.clock import Clock, Now
from cachesvc_proto.v1 import cache_pb2 as pb
from tests.cli.conftest import Run
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon, running_daemon, s3_settings
from tests.support.grpc_calls import get_human
from tests.support.s3.servers import S3Server
from tests.support.sample_objects import fresh_id, put_in_bucket, torch_save
from tests.support.v2_directories import HOUR_S, V2, put_aged, set_age


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for this file alone: other files' tests invalidate everything, and V2's files are
    older.
    """
    with running_daemon(tmp_path_factory.mktemp("daemon"), is_forked=True) as running:
        yield running


@pytest.fixture
def v2(tmp_path: Path) -> V2:
    return V2(tmp_path / "v2")


@pytest.fixture
def settings(daemon: Daemon, monkeypatch: pytest.MonkeyPatch, run_alone: Run) -> None:
    """This file's daemon; the command has its settings."""
    for name, value in daemon.settings.items():  # after run_alone, which clears our settings
        monkeypatch.setenv(f"CACHESVC_{name}", value)


class LaterClock(Clock):
    """Two hours ahead, because a test cannot choose an object's time at S3."""

    def read(self) -> Now:
        now = super().read()
        return now._replace(wall_ns=now.wall_ns + int(2 * HOUR_S * 1e9))


@pytest.fixture
def imported(run_alone: Run, settings: None, v2: V2) -> Callable[..., Any]:
    """Run the import and check its exit `code`; return its JSON."""

    def run_it(*options: str, code: int = 0) -> Any:
        done = run_alone("import-v2", str(v2.root), "--json", *options)
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    return run_it


def outcome(shown: Any) -> str:
    (skipped,) = shown["skipped"]
    return str(skipped["outcome"])


def test_every_kind_is_adopted_bit_for_bit_and_v2s_files_stay(
    imported: Callable[..., Any], daemon: Daemon, v2: V2
) -> None:
    user, clothing, owner = fresh_id("u"), fresh_id("g"), fresh_id("o")
    person = sample_objects.person(user)
    garment = sample_objects.garment(clothing, owner)
    text = sample_objects.text(clothing, owner, save=torch_save)
    put_aged(daemon, person, age_s=2 * HOUR_S)
    v2.write("human_upper_body", user, person, age_s=HOUR_S)
    v2.write("garment", clothing, garment, age_s=HOUR_S)
    v2.write("text", clothing, text, age_s=HOUR_S)
    before = v2.tree()

    shown = imported("--owner", owner)

    assert shown["skipped"] == []
    assert set(shown["namespaces"]) == {"human_upper_body", "garment", "text"}
    stub = daemon.stub()
    found = get_human(stub, user)
    assert found.info.tier == pb.TIER_MEMORY
    assert person.matches(found.tensors)
    assert garment.matches(
        stub.GetGarment(pb.GetGarmentRequest(clothing_id=clothing)).entry.tensors
    )
    assert text.matches(stub.GetText(pb.GetTextRequest(clothing_id=clothing)).entry.tensors)
    assert v2.tree() == before


def test_an_import_that_ran_before_has_nothing_left_to_do(
    imported: Callable[..., Any], v2: V2
) -> None:
    for name in (fresh_id("t") for _ in range(3)):
        v2.write("text", name, sample_objects.text(name, "o"))
    assert imported("--owner", "o")["namespaces"] == {"text": {"adopted": 3}}
    assert imported("--owner", "o")["namespaces"] == {"text": {"present": 3}}


@pytest.mark.parametrize("newer_by_s", [-HOUR_S, 0.0, 59.0])
def test_a_person_that_is_not_clearly_newer_than_the_origin_is_not_adopted(
    imported: Callable[..., Any], daemon: Daemon, v2: V2, newer_by_s: float
) -> None:
    """Promise 1: V2 could write an old photo's files after the new photo's upload."""
    user = fresh_id("u")
    new, old = (sample_objects.person(user, seed=seed) for seed in (60, 1))
    put_aged(daemon, new, age_s=2 * HOUR_S)
    v2.write("human_upper_body", user, old, age_s=2 * HOUR_S - newer_by_s)
    assert outcome(imported()) == "older_than_origin"
    assert new.matches(get_human(daemon.stub(), user).tensors)


def test_one_member_that_is_older_than_its_object_keeps_the_person_out(
    imported: Callable[..., Any], daemon: Daemon, v2: V2
) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user)
    put_aged(daemon, person, age_s=2 * HOUR_S)
    folder = v2.write("human_upper_body", user, person, age_s=2 * HOUR_S - 70)
    set_age(folder / "mask.png", 2 * HOUR_S - 50)
    shown = imported()
    assert outcome(shown) == "older_than_origin"
    assert shown["skipped"][0]["detail"] == "mask"


def test_a_person_that_the_origin_no_longer_has_is_not_adopted(
    imported: Callable[..., Any], v2: V2
) -> None:
    user = fresh_id("u")
    v2.write("human_dresses", user, sample_objects.person(user, "dresses"))
    assert outcome(imported()) == "absent_at_origin"


def test_an_origin_that_cannot_be_asked_keeps_persons_out_and_is_code_1(
    imported: Callable[..., Any], v2: V2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3."""
    user = fresh_id("u")
    v2.write("human_upper_body", user, sample_objects.person(user))
    monkeypatch.setenv("CACHESVC_ORIGIN__PATH", "/nonexistent/unmounted")
    assert outcome(imported(code=1)) == "origin_failed"


def test_what_was_invalidated_since_is_refused_by_the_daemon(
    imported: Callable[..., Any], daemon: Daemon, v2: V2
) -> None:
    """Promise 1."""
    clothing = fresh_id("g")
    v2.write("garment", clothing, sample_objects.garment(clothing, "o"), age_s=HOUR_S)
    daemon.stub().Invalidate(pb.InvalidateRequest(clothing_id=clothing))
    assert outcome(imported("--owner", "o")) == "outdated"


def test_garments_need_an_owner_and_a_file_may_name_each(
    imported: Callable[..., Any], daemon: Daemon, v2: V2, tmp_path: Path
) -> None:
    names = [fresh_id("g") for _ in range(3)]
    for name in names:
        v2.write("garment", name, sample_objects.garment(name, "o"))
    assert imported(code=1)["namespaces"] == {"garment": {"no_owner": 3}}
    owners = tmp_path / "owners.csv"
    owners.write_text(f"{names[0]},anna\n{names[1]}, bert\n")
    shown = imported("--owners", str(owners), code=1)
    assert shown["namespaces"] == {"garment": {"adopted": 2, "no_owner": 1}}
    assert imported("--owner", "rest")["namespaces"] == {"garment": {"present": 2, "adopted": 1}}
    for name, owner in zip(names, ("anna", "bert", "rest"), strict=True):
        key = pb.EntryKey(namespace="garment", id=name)
        tiers = daemon.stub().Inspect(pb.InspectRequest(key=key)).tiers
        assert {tier.owner_id for tier in tiers} == {owner}


class Payload:
    """Creates a file if anything unpickles it."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def test_hostile_and_broken_entries_are_counted_and_the_rest_is_adopted(
    imported: Callable[..., Any], v2: V2, tmp_path: Path
) -> None:
    """Promise 7."""
    good = fresh_id("good")
    folders = {
        name: v2.write("text", name, sample_objects.text(name, "o"))
        for name in (good, "hostile", "damaged", "partial", "linked", "fifo", "future", ".odd")
    }
    witness = tmp_path / "executed"
    (folders["hostile"] / "prompt_embeds.pkl").write_bytes(pickle.dumps(Payload(witness)))
    cut = folders["damaged"] / "prompt_embeds_c.pkl"
    cut.write_bytes(cut.read_bytes()[:-9])
    (folders["partial"] / "prompt_embeds.pkl").unlink()
    for name, replace in (("linked", lambda at: at.symlink_to(cut)), ("fifo", os.mkfifo)):
        file = folders[name] / "prompt_embeds.pkl"
        file.unlink()
        replace(file)
    for name in ("hostile", "damaged", "partial", "fifo"):
        set_age(folders[name], HOUR_S)
    set_age(folders["future"], -HOUR_S)
    (v2.root / "text" / "notes.txt").write_text("not an entry")
    (v2.root / "text" / "ours").mkdir()
    (v2.root / "text" / "ours" / "17.safetensors").write_bytes(b"ours")

    shown = imported("--owner", "o", code=1)

    found = {skipped["id"]: skipped["outcome"] for skipped in shown["skipped"]}
    assert found == {
        "hostile": "refused",
        "damaged": "refused",
        "partial": "incomplete",
        "linked": "unreadable",
        "fifo": "unreadable",
        "future": "from_the_future",
        ".odd": "bad_name",
        "notes.txt": "not_v2",
        "ours": "not_v2",
    }
    assert shown["namespaces"]["text"]["adopted"] == 1
    assert not witness.exists()


def test_files_that_were_not_written_together_are_of_two_photos_perhaps(
    imported: Callable[..., Any], daemon: Daemon, v2: V2
) -> None:
    """Promise 2: V2's save could end after any of its files, and the next save did not notice."""
    user = fresh_id("u")
    person = sample_objects.person(user)
    put_aged(daemon, person, age_s=9 * HOUR_S)
    folder = v2.write("human_upper_body", user, person, age_s=2 * HOUR_S)
    set_age(folder / "human_img.png", HOUR_S)
    assert outcome(imported()) == "mixed"


def test_what_v2_may_be_writing_just_now_is_left_for_the_next_run(
    imported: Callable[..., Any], v2: V2
) -> None:
    name = fresh_id("g")
    folder = v2.write("garment", name, sample_objects.garment(name, "o"))
    set_age(folder / "garm_img.png", 30.0)
    assert outcome(imported("--owner", "o", code=1)) == "changing"


def test_tensors_of_an_unknown_model_are_not_taken_for_the_kinds_version(
    imported: Callable[..., Any], v2: V2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHESVC_KINDS__TEXT__VERSION", "clip-2")
    name = fresh_id("t")
    v2.write("text", name, sample_objects.text(name, "o"))
    assert outcome(imported("--owner", "o", code=1)) == "other_version"
    assert outcome(imported("--owner", "o", "--kind-version", "clip-1", code=1)) == "other_version"
    shown = imported("--owner", "o", "--kind-version", "clip-2")
    assert shown["namespaces"] == {"text": {"adopted": 1}}


def test_a_dry_run_says_the_same_and_stores_nothing(
    imported: Callable[..., Any], daemon: Daemon, v2: V2
) -> None:
    name = fresh_id("g")
    v2.write("garment", name, sample_objects.garment(name, "o"))
    assert imported("--owner", "o", "--dry-run")["namespaces"] == {"garment": {"adopted": 1}}
    key = pb.EntryKey(namespace="garment", id=name)
    assert not daemon.stub().Inspect(pb.InspectRequest(key=key)).tiers


def test_garments_are_compared_with_the_origin_where_that_is_asked(
    imported: Callable[..., Any], daemon: Daemon, v2: V2
) -> None:
    name = fresh_id("g")
    v2.write("garment", name, sample_objects.garment(name, "o"), age_s=2 * HOUR_S)
    put_aged(daemon, sample_objects.garment(name, "o", seed=9), age_s=HOUR_S)
    assert outcome(imported("--owner", "o", "--compare-all")) == "older_than_origin"


def test_the_table_for_people_counts_and_names(run_alone: Run, settings: None, v2: V2) -> None:
    name = fresh_id("g")
    v2.write("garment", name, sample_objects.garment(name, "o"))
    v2.write("garment", "g2\x1b[31m", sample_objects.garment("g2", "o"))
    done = run_alone("import-v2", str(v2.root), "--owner", "o", "--list")
    assert done.exit_code == 0, done.output
    assert "adopted" in done.stdout
    assert "stored in the cache" in done.stdout
    assert "bad_name" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_daemon_that_goes_away_ends_the_import_and_what_was_done_is_shown(
    run_alone: Run, settings: None, v2: V2, tmp_path: Path
) -> None:
    name = fresh_id("g")
    v2.write("garment", name, sample_objects.garment(name, "o"))
    done = run_alone(
        *("import-v2", str(v2.root), "--owner", "o", "--json"),
        *("--target", str(tmp_path / "none.sock"), "--timeout", "0.2"),
    )
    assert done.exit_code == 4
    assert json.loads(done.stdout) == {"namespaces": {}, "skipped": []}


@pytest.mark.parametrize("options", [("--namespace", "shoes"), ("--owners", "/nonexistent.csv")])
def test_what_is_not_there_is_wrong_usage(
    run_alone: Run, settings: None, v2: V2, options: tuple[str, ...]
) -> None:
    v2.write("garment", "g1", sample_objects.garment("g1", "o"))
    assert run_alone("import-v2", str(v2.root), *options).exit_code == 2


def test_a_directory_without_v2s_namespaces_is_wrong_usage(
    run_alone: Run, settings: None, tmp_path: Path
) -> None:
    refused = run_alone("import-v2", str(tmp_path))
    assert refused.exit_code == 2
    assert "ssd_root" in refused.stderr


@pytest.mark.s3
def test_a_person_is_compared_with_the_objects_times_at_s3(
    run_alone: Run,
    new_daemon: NewDaemon,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    v2: V2,
) -> None:
    """Promise 1."""
    bucket = s3_server.new_bucket()
    settings = s3_settings(s3_server, bucket)
    daemon = new_daemon(environment=s3_server.credentials(), **settings)
    environment = {f"CACHESVC_{name}": value for name, value in daemon.settings.items()}
    for name, value in {**environment, **s3_server.credentials()}.items():
        monkeypatch.setenv(name, value)
    newer, older, deleted = (fresh_id("u") for _ in range(3))
    people = {user: sample_objects.person(user) for user in (newer, older, deleted)}
    put_in_bucket(s3_server, bucket, people[newer], people[older])
    for user, person in people.items():
        v2.write("human_upper_body", user, person, age_s=HOUR_S if user == older else -HOUR_S)
    monkeypatch.setattr("cachesvc.core.clock.Clock", LaterClock)

    done = run_alone("import-v2", str(v2.root), "--json")

    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    found = {skipped["id"]: skipped["outcome"] for skipped in shown["skipped"]}
    assert found == {older: "older_than_origin", deleted: "absent_at_origin"}
    assert shown["namespaces"]["human_upper_body"]["adopted"] == 1
    served = get_human(daemon.stub(), newer)
    assert served.info.tier == pb.TIER_MEMORY
    assert people[newer].matches(served.tensors)
