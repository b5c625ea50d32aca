"""Do inspect, warm and invalidate say what the daemon did?"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.cli.conftest import Run, on_daemon
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id, put_in_folder


def _wardrobe(daemon: Daemon) -> tuple[str, str]:
    user, clothing = fresh_id("u"), fresh_id("g")
    put_in_folder(
        daemon.origin_dir,
        sample_objects.person(user),
        sample_objects.garment(clothing, user),
        sample_objects.text(clothing, user),
    )
    return user, clothing


def test_warm_fetches_a_person_and_garments(run: Run, daemon: Daemon) -> None:
    user, clothing = _wardrobe(daemon)
    warmed = run("warm", "--user", user, "--category", "upper_body", "--garment", clothing)
    assert warmed.exit_code == 0, warmed.output
    assert "3/3" in warmed.stdout
    shown = json.loads(run("inspect", "garment", clothing, "--json").stdout)
    assert shown["tiers"]


def test_warm_of_a_borrowed_garment_asks_its_owner(run: Run, daemon: Daemon) -> None:
    owner, clothing = _wardrobe(daemon)
    warmed = run("warm", "--garment", f"{clothing}:{owner}", "--json")
    assert json.loads(warmed.stdout) == {"done": 2, "total": 2, "absent": [], "failed": []}


def test_warm_of_a_person_without_some_areas_has_done_all_that_was_asked(
    run: Run, daemon: Daemon
) -> None:
    user, clothing = _wardrobe(daemon)
    warmed = run("warm", "--user", user, "--garment", clothing)
    assert warmed.exit_code == 0, warmed.output
    assert f"human_dresses/{user}: absent: NO_SUCH_OBJECT" in warmed.stdout
    shown = json.loads(run("warm", "--user", user, "--json").stdout)
    assert {one["namespace"] for one in shown["absent"]} == {"human_dresses", "human_lower_body"}
    assert shown["failed"] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("--garment", "{clothing}:{user}", "--garment", "absent:{user}"),
        ("--user", "{user}", "--category", "dresses"),
        ("--user", "absent-{user}"),
    ],
    ids=["a garment", "an area by its name", "every area"],
)
def test_warm_of_what_was_asked_for_and_is_absent_is_code_3(
    run: Run, daemon: Daemon, arguments: tuple[str, ...]
) -> None:
    user, clothing = _wardrobe(daemon)
    named = [text.format(user=user, clothing=clothing) for text in arguments]
    warmed = run("warm", *named, "--json")
    assert warmed.exit_code == 3
    assert json.loads(warmed.stdout)["failed"] == []
    assert "the origin does not have" in warmed.stderr


def test_warm_of_what_fails_is_code_1_also_beside_an_absence(run: Run, daemon: Daemon) -> None:
    user, clothing = _wardrobe(daemon)
    sound = sample_objects.garment(clothing, user)
    broken = replace(sound, objects=dict.fromkeys(sound.objects, b"no image, no tensor"))
    put_in_folder(daemon.origin_dir, broken)
    warmed = run("warm", "--garment", f"{clothing}:{user}", "--garment", f"absent:{user}", "--json")
    assert warmed.exit_code == 1
    shown = json.loads(warmed.stdout)
    assert [one["namespace"] for one in shown["failed"]] == ["garment"]
    assert sorted(one["namespace"] for one in shown["absent"]) == ["garment", "text"]


def test_inspect_of_a_key_in_no_tier_is_an_answer(run: Run) -> None:
    shown = run("inspect", "text", fresh_id("g"))
    assert shown.exit_code == 0
    assert "in no tier" in shown.stdout


def test_inspect_shows_the_owner_and_each_tier(run: Run, daemon: Daemon) -> None:
    owner, clothing = _wardrobe(daemon)
    assert run("get", "text", clothing, "--owner", owner).exit_code == 0
    daemon.wait_until_stored()
    shown = json.loads(run("inspect", "text", clothing, "--json").stdout)
    assert [tier["tier"] for tier in shown["tiers"]] == ["memory", "disk"]
    assert {tier["owner_id"] for tier in shown["tiers"]} == {owner}


def test_invalidate_by_garment_removes_its_text_too(run: Run, daemon: Daemon) -> None:
    user, clothing = _wardrobe(daemon)
    assert run("get", "tryon", user, clothing).exit_code == 0
    done = json.loads(run("invalidate", "--clothing", clothing, "--json").stdout)
    assert done["removed_count"] == 2
    for namespace in ("garment", "text"):
        assert json.loads(run("inspect", namespace, clothing, "--json").stdout)["tiers"] == []


def test_invalidate_by_key_removes_that_entry_only(run: Run, daemon: Daemon) -> None:
    user, clothing = _wardrobe(daemon)
    assert run("get", "tryon", user, clothing).exit_code == 0
    done = run("invalidate", "--key", f"text/{clothing}")
    assert done.exit_code == 0
    assert done.stdout.endswith("; entries that were cached: 1\n")
    assert json.loads(run("inspect", "garment", clothing, "--json").stdout)["tiers"]


def test_everything_is_removed_only_after_a_yes(run_alone: Run, new_daemon: NewDaemon) -> None:
    daemon = new_daemon()  # its own: the recorded change would refuse others' older Puts
    run = on_daemon(run_alone, daemon)
    user, _ = _wardrobe(daemon)
    assert run("get", "human", user).exit_code == 0
    assert run("invalidate", "--everything", input="n\n").exit_code == 1
    assert json.loads(run("inspect", "human_upper_body", user, "--json").stdout)["tiers"]
    assert run("invalidate", "--everything", input="y\n").exit_code == 0
    assert json.loads(run("inspect", "human_upper_body", user, "--json").stdout)["tiers"] == []


def test_everything_with_yes_does_not_ask(run_alone: Run, new_daemon: NewDaemon) -> None:
    run = on_daemon(run_alone, new_daemon())
    done = run("invalidate", "--everything", "--yes", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["removed_count"] >= 0
