"""Does `cachesvc get` show and write exactly the entry that the daemon holds?"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from cachesvc_client import CacheClient
from tests.cli.conftest import Run, RunApart, on_daemon
from tests.conftest import NewDaemon
from tests.support import sample_objects
from tests.support.daemons import Daemon
from tests.support.sample_objects import fresh_id, put_in_folder

PERSON_FILES = {"human.safetensors", "human_img.png", "mask.png", "mask_gray.png"}


def test_get_writes_the_blob_and_each_image_of_a_person(
    run: Run, daemon: Daemon, folder: Path
) -> None:
    user = fresh_id("u")
    person = sample_objects.person(user)
    put_in_folder(daemon.origin_dir, person)

    got = run("get", "human", user, "--output", str(folder))

    assert got.exit_code == 0, got.output
    assert {path.name for path in folder.iterdir()} == PERSON_FILES
    assert person.matches((folder / "human.safetensors").read_bytes())
    for name in ("human_img", "mask", "mask_gray"):
        expected = person.values[name]
        with Image.open(folder / f"{name}.png") as image:
            assert image.mode == expected.mode
            assert np.array_equal(image, expected)


def test_written_files_are_their_owners_alone(run: Run, daemon: Daemon, folder: Path) -> None:
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    assert run("get", "human", user, "--output", str(folder)).exit_code == 0
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_file_that_all_could_read_is_its_owners_alone_once_it_is_overwritten(
    run: Run, daemon: Daemon, folder: Path
) -> None:
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    folder.mkdir()
    mine = folder / "human_img.png"
    mine.write_bytes(bytes(1 << 20))
    mine.chmod(0o644)

    assert run("get", "human", user, "--output", str(folder), "--force").exit_code == 0
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    with Image.open(mine) as image:
        image.load()
    assert mine.stat().st_size < 1 << 20


def test_get_overwrites_nothing_unless_told_to(run: Run, daemon: Daemon, folder: Path) -> None:
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    folder.mkdir()
    mine = folder / "mask.png"
    mine.write_text("mine")

    refused = run("get", "human", user, "--output", str(folder))
    assert refused.exit_code == 1
    assert "mask.png" in refused.stderr
    assert [path.name for path in folder.iterdir()] == ["mask.png"]
    assert mine.read_text() == "mine"

    assert run("get", "human", user, "--output", str(folder), "--force").exit_code == 0
    assert {path.name for path in folder.iterdir()} == PERSON_FILES


def test_force_does_not_write_through_a_link(
    run: Run, daemon: Daemon, folder: Path, tmp_path: Path
) -> None:
    user = fresh_id("u")
    put_in_folder(daemon.origin_dir, sample_objects.person(user))
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (folder / "mask.png").symlink_to(elsewhere)

    assert run("get", "human", user, "--output", str(folder), "--force").exit_code == 1
    assert elsewhere.read_text() == "mine"


def test_json_names_tier_fields_and_shapes(run: Run, daemon: Daemon) -> None:
    user, clothing = fresh_id("u"), fresh_id("g")
    put_in_folder(
        daemon.origin_dir,
        sample_objects.person(user),
        sample_objects.garment(clothing, user),
        sample_objects.text(clothing, user),
    )
    parts = json.loads(run("get", "tryon", user, clothing, "--json").stdout)["parts"]
    assert {part: values["tier"] for part, values in parts.items()} == dict.fromkeys(
        ("human", "garment", "text"), "origin"
    )
    sizes = sample_objects.SMALL
    pose = parts["human"]["fields"]["pose_tensor"]
    assert pose == {"dtype": "F16", "shape": list(sizes.pose), "mode": None}
    assert parts["garment"]["fields"]["garm_img"]["mode"] == "RGB"
    assert len(parts["text"]["fields"]) == 5


def test_what_nobody_has_is_code_3_and_says_which_part(run: Run, daemon: Daemon) -> None:
    owner, clothing = fresh_id("u"), fresh_id("g")
    put_in_folder(
        daemon.origin_dir,
        sample_objects.garment(clothing, owner),
        sample_objects.text(clothing, owner),
    )
    missing = run("get", "tryon", fresh_id("nobody"), clothing, "--owner", owner)
    assert missing.exit_code == 3
    assert "missing: human" in missing.stderr
    assert missing.stdout == ""


def test_a_garment_of_an_unknown_owner_says_to_name_one(run: Run) -> None:
    refused = run("get", "garment", fresh_id("g"))
    assert refused.exit_code == 1
    assert "--owner" in refused.stderr


def test_an_id_that_could_leave_its_folder_is_code_2(run: Run) -> None:
    refused = run("get", "human", "../../etc")
    assert refused.exit_code == 2
    assert "INVALID_ID" in refused.stderr


def test_an_entry_with_bf16_is_written_where_torch_is_not_installed(
    run_apart: RunApart, daemon: Daemon, folder: Path
) -> None:
    clothing = fresh_id("g")
    person = sample_objects.garment(clothing, "owner")
    values = {**person.values, "garm_tensor": person.values["garm_tensor"].bfloat16()}
    with CacheClient(daemon.target) as client:
        client.put_garment(clothing, **values)

    arguments = ("get", "garment", clothing, "--output", str(folder))
    no_torch = "import sys\nsys.modules['torch'] = None"
    got = run_apart(*arguments, "--target", daemon.target, before=no_torch)

    assert got.returncode == 0, got.stderr
    written = safetensors.torch.load_file(folder / "garment.safetensors")
    assert written["garm_tensor"].dtype is torch.bfloat16
    assert torch.equal(written["garm_tensor"], values["garm_tensor"])


def test_an_origin_that_cannot_be_asked_leads_to_doctor(
    run_alone: Run, new_daemon: NewDaemon
) -> None:
    daemon = new_daemon()
    daemon.origin_dir.rmdir()
    failed = on_daemon(run_alone, daemon)("get", "human", fresh_id("u"))
    assert failed.exit_code == 1
    assert "(ORIGIN_UNREACHABLE)" in failed.stderr
    assert "cachesvc doctor" in failed.stderr
